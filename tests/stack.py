"""Fixtures of the real services: RabbitMQ, PostgreSQL and object stores.

A session starts one set of services, in a state directory of its own, so that it never
touches a running `make up`. Each test gets a new virtual host and bucket, and a database as new.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from dev.stack import environment
from dev.stack.infrastructure import Part, Store
from dev.stack.object_store import ObjectStore, settings_in
from dev.stack.stack import Stack
from schemas.settings import BrokerSettings, DatabaseSettings, ObjectStoreSettings
from tests import containers
from tests.forked_stack import Forked
from tests.killable import Killable
from tests.reused_database import ReusedDatabase
from tests.scanner import Scanner, scanner_in

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = "waybill_template"


def fresh_name() -> str:
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def service_containers() -> Iterator[tuple[dict[str, str], dict[str, Killable]]]:
    """RabbitMQ, PostgreSQL and an S3 store in containers; nothing without a container engine."""
    if containers.engine_answers():
        with containers.started() as started:
            yield started
    else:
        yield {}, {}


@pytest.fixture(scope="session")
def services(
    request: pytest.FixtureRequest,
    service_containers: tuple[dict[str, str], dict[str, Killable]],
) -> Iterator[Stack]:
    """Services that the environment names, else containers, else local processes, not yet started."""
    settings, _ = service_containers
    state_dir: Path = request.config.getoption("--state-dir")
    with Stack(
        state_dir, settings=settings | environment.given(), fsync=False, execution=Forked()
    ) as stack:
        yield stack


@pytest.fixture(scope="session")
def databases(services: Stack) -> Stack:
    """The services with PostgreSQL running: a start of RabbitMQ takes the CPU time of forty tests."""
    services.start_infrastructure(Part.POSTGRES)
    return services


@pytest.fixture(scope="session")
def buckets(services: Stack) -> Stack:
    """The services with the object store running."""
    services.start_infrastructure(Part.OBJECT_STORE)
    return services


@pytest.fixture(scope="session")
def infrastructure(services: Stack) -> Stack:
    """All services, running."""
    services.start_infrastructure()
    return services


@pytest.fixture(scope="session")
def infrastructure_processes(
    infrastructure: Stack,
    service_containers: tuple[dict[str, str], dict[str, Killable]],
) -> Mapping[str, Killable]:
    """The services that a test may kill, by name; services named by the environment are left out."""
    _, contained = service_containers
    local = {name: process for name, process in infrastructure.processes.items() if name != "epmd"}
    return {**contained, **local}


@pytest.fixture(scope="session")
def store_front(infrastructure_processes: Mapping[str, Killable]) -> Killable:
    """The process of the store that clients connect to."""
    return infrastructure_processes.get("swift-proxy") or infrastructure_processes["store"]


@pytest.fixture(scope="session")
def migrated_template(databases: Stack) -> str:
    """The name of a database with every migration applied; tests copy it."""
    url = databases.create_database(TEMPLATE)
    databases.run(("alembic", "upgrade", "head"), settings=url)
    return TEMPLATE


@pytest.fixture(scope="session")
def reused_database(databases: Stack, migrated_template: str) -> Iterator[ReusedDatabase]:
    reused = ReusedDatabase(databases, template=migrated_template)
    yield reused
    reused.drop()


@pytest.fixture
def database(reused_database: ReusedDatabase) -> DatabaseSettings:
    """A migrated database, as new."""
    return reused_database.renew()


@pytest.fixture(scope="session")
def reused_module_database(databases: Stack, migrated_template: str) -> Iterator[ReusedDatabase]:
    reused = ReusedDatabase(databases, template=migrated_template)
    yield reused
    reused.drop()


@pytest.fixture(scope="module")
def module_database(reused_module_database: ReusedDatabase) -> DatabaseSettings:
    """A migrated database, as new, for all tests of a file."""
    return reused_module_database.renew()


@pytest.fixture
def broker(infrastructure: Stack) -> Iterator[BrokerSettings]:
    """A new virtual host."""
    name = fresh_name()
    url = infrastructure.create_vhost(name)
    yield BrokerSettings.model_validate({"rabbitmq_url": url["RABBITMQ_URL"]})
    infrastructure.delete_vhost(name)


@pytest.fixture(scope="session")
def object_store(buckets: Stack) -> ObjectStore:
    return ObjectStore.from_settings(buckets.environment)


@pytest.fixture
def object_store_settings(buckets: Stack, object_store: ObjectStore) -> ObjectStoreSettings:
    """A new bucket."""
    name = fresh_name()
    object_store.create_bucket(name)
    return settings_in(buckets.environment | {"S3_BUCKET": name})


@pytest.fixture(scope="session")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scanner]:
    """clamd; a test that stops it starts it again."""
    with scanner_in(tmp_path_factory.mktemp("clamd")) as scanner:
        yield scanner


@pytest.fixture(params=list(Store), ids=str)
def store(request: pytest.FixtureRequest) -> Store:
    """Each object store in turn."""
    store: Store = request.param
    return store


@pytest.fixture(scope="session")
def store_clients() -> dict[Store, ObjectStore]:
    """One client for each started object store: making a client takes longer than making a bucket."""
    return {}


@pytest.fixture
def store_settings(
    services: Stack, store_clients: dict[Store, ObjectStore], store: Store
) -> ObjectStoreSettings:
    """A new bucket on each object store in turn. A store starts when the first test asks for it."""
    settings = services.start_store(store) | {"S3_BUCKET": fresh_name()}
    if store not in store_clients:
        store_clients[store] = ObjectStore.from_settings(settings)
    store_clients[store].create_bucket(settings["S3_BUCKET"])
    return settings_in(settings)
