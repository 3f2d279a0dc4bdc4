"""The migrations create the declared tables, and can be reverted."""

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text

from dev.stack.stack import Stack
from tests.stack import fresh_name

UPLOADS_OF_TWO_TENANTS = """
WITH owners AS (
    INSERT INTO tenants (id, name) VALUES
        (gen_random_uuid(), 'acme'), (gen_random_uuid(), 'globex')
    RETURNING id, name
)
INSERT INTO uploads
    (id, tenant_id, status, filename, size, chunk_size, chunk_count, staging, expires_at)
SELECT gen_random_uuid(), owners.id, status, 'a', size, 1, 1, staging, now()
FROM owners JOIN (VALUES
    ('acme', 'open', 1, 'directory'),
    ('acme', 'finalized', 10, 's3'),
    ('acme', 'finalized', 100, 'reference'),
    ('acme', 'stored', 1000, 'directory'),
    ('globex', 'failed', 10000, 'directory'),
    ('globex', 'stored', 100000, 'directory')
) AS uploaded (owner, status, size, staging) ON owner = name
"""


@pytest.fixture
def empty_database(infrastructure: Stack) -> Iterator[dict[str, str]]:
    name = fresh_name()
    yield infrastructure.create_database(name)
    infrastructure.drop_database(name)


def test_the_newest_migration_creates_the_declared_tables(
    infrastructure: Stack, empty_database: dict[str, str]
) -> None:
    infrastructure.run(("alembic", "upgrade", "head"), settings=empty_database)
    # Fails and lists the differences that autogenerate finds.
    infrastructure.run(("alembic", "check"), settings=empty_database)


def test_every_migration_can_be_reverted_and_applied_again(
    infrastructure: Stack, empty_database: dict[str, str]
) -> None:
    for command in (("upgrade", "head"), ("downgrade", "base"), ("upgrade", "head")):
        infrastructure.run(("alembic", *command), settings=empty_database)
    infrastructure.run(("alembic", "check"), settings=empty_database)


def test_the_staged_bytes_of_earlier_uploads_are_summed(
    infrastructure: Stack, empty_database: dict[str, str]
) -> None:
    infrastructure.run(("alembic", "upgrade", "0004"), settings=empty_database)
    engine = create_engine(empty_database["DATABASE_URL"])
    with engine.begin() as connection:
        connection.execute(text(UPLOADS_OF_TWO_TENANTS))
    infrastructure.run(("alembic", "upgrade", "head"), settings=empty_database)

    with engine.connect() as connection:
        query = "SELECT name, staged_bytes FROM tenant_usage JOIN tenants ON id = tenant_id"
        staged = {row.name: row.staged_bytes for row in connection.execute(text(query))}
    engine.dispose()
    assert staged == {"acme": 11, "globex": 0}
