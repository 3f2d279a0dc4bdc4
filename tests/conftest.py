"""The real services every integration and end-to-end test stands on.

One set of them per session, in a state directory of its own, so that a running
`make up` is never touched; each test gets a database, virtual host and bucket
nobody used before.
"""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dev.stack.stack import Stack
from schemas.settings import BrokerSettings, DatabaseSettings, ObjectStoreSettings

CHECKOUT = Path(__file__).resolve().parent.parent
TEMPLATE = "waybill_template"


def fresh_name() -> str:
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def infrastructure() -> Iterator[Stack]:
    """RabbitMQ, PostgreSQL and an S3 store, running."""
    with Stack(CHECKOUT / "var" / "test") as stack:
        stack.start_infrastructure()
        yield stack


@pytest.fixture(scope="session")
def migrated_template(infrastructure: Stack) -> str:
    """The name of a database with every migration applied, to be copied."""
    url = infrastructure.create_database(TEMPLATE)
    infrastructure.run(("env", f"DATABASE_URL={url['DATABASE_URL']}", "alembic", "upgrade", "head"))
    return TEMPLATE


@pytest.fixture
def database(infrastructure: Stack, migrated_template: str) -> Iterator[DatabaseSettings]:
    """A migrated database of the test's own."""
    name = fresh_name()
    url = infrastructure.create_database(name, template=migrated_template)
    yield DatabaseSettings.model_validate({"database_url": url["DATABASE_URL"]})
    infrastructure.drop_database(name)


@pytest.fixture
def broker(infrastructure: Stack) -> Iterator[BrokerSettings]:
    """A virtual host of the test's own."""
    name = fresh_name()
    url = infrastructure.create_vhost(name)
    yield BrokerSettings.model_validate({"rabbitmq_url": url["RABBITMQ_URL"]})
    infrastructure.delete_vhost(name)


@pytest.fixture
def object_store_settings(infrastructure: Stack) -> ObjectStoreSettings:
    """A bucket of the test's own."""
    settings = infrastructure.environment | infrastructure.create_bucket(fresh_name())
    return ObjectStoreSettings.model_validate(
        {name.lower(): value for name, value in settings.items() if name.startswith("S3_")},
    )
