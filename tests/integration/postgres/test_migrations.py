"""The migrations create the declared tables, and can be reverted."""

from collections.abc import Iterator

import pytest

from dev.stack.stack import Stack
from tests.stack import fresh_name


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
