"""The real services every integration and end-to-end test stands on.

One set of them per session, in a state directory of its own, so that a running
`make up` is never touched; each test gets a database, virtual host and bucket
nobody used before.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from dev.stack import environment
from dev.stack.infrastructure import Store
from dev.stack.object_store import ObjectStore, settings_in
from dev.stack.stack import Stack
from schemas.settings import BrokerSettings, DatabaseSettings, ObjectStoreSettings
from tests import containers
from tests.parts import Part

CHECKOUT = Path(__file__).resolve().parent.parent
TEMPLATE = "waybill_template"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--state-dir",
        type=Path,
        default=CHECKOUT / "var" / "test",
        help="where the services keep their state; two test runs at once need one each",
    )


def fresh_name() -> str:
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def container_parts() -> Iterator[tuple[dict[str, str], dict[str, Part]]]:
    """RabbitMQ, PostgreSQL and an S3 store in containers, where an engine answers."""
    if containers.an_engine_answers():
        with containers.started() as started:
            yield started
    else:
        yield {}, {}


@pytest.fixture(scope="session")
def infrastructure(
    request: pytest.FixtureRequest,
    container_parts: tuple[dict[str, str], dict[str, Part]],
) -> Iterator[Stack]:
    """RabbitMQ, PostgreSQL and an S3 store, running: brought along, in containers, or started here."""
    settings, _ = container_parts
    state_dir: Path = request.config.getoption("--state-dir")
    with Stack(state_dir, settings=settings | environment.given()) as stack:
        stack.start_infrastructure()
        yield stack


@pytest.fixture(scope="session")
def parts(
    infrastructure: Stack, container_parts: tuple[dict[str, str], dict[str, Part]]
) -> Mapping[str, Part]:
    """What a test may kill of the infrastructure; of one brought along, nothing."""
    _, contained = container_parts
    local = {name: process for name, process in infrastructure.processes.items() if name != "epmd"}
    return {**contained, **local}


@pytest.fixture(scope="session")
def store_front(parts: Mapping[str, Part]) -> Part:
    """The process of the store that its clients speak to."""
    return parts.get("swift-proxy") or parts["store"]


@pytest.fixture(scope="session")
def migrated_template(infrastructure: Stack) -> str:
    """The name of a database with every migration applied, to be copied."""
    url = infrastructure.create_database(TEMPLATE)
    infrastructure.run(("alembic", "upgrade", "head"), settings=url)
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
    return settings_in(settings)


@pytest.fixture(params=list(Store), ids=str)
def store(request: pytest.FixtureRequest) -> Store:
    """Each object store in turn."""
    store: Store = request.param
    return store


@pytest.fixture(scope="session")
def administered() -> dict[Store, ObjectStore]:
    """The object stores that were started so far: a client takes longer to make than a bucket."""
    return {}


@pytest.fixture
def store_settings(
    infrastructure: Stack, administered: dict[Store, ObjectStore], store: Store
) -> ObjectStoreSettings:
    """A bucket of the test's own on each object store in turn; one no test asks for is not started."""
    settings = infrastructure.start_store(store) | {"S3_BUCKET": fresh_name()}
    if store not in administered:
        administered[store] = ObjectStore.from_settings(settings)
    administered[store].create_bucket(settings["S3_BUCKET"])
    return settings_in(settings)
