"""The whole system, its processes started as users start them and restarted when they die."""

from collections.abc import Iterator

import pytest

from dev.client import Client
from dev.stack.stack import Stack
from tests.bucket import Bucket
from tests.e2e import whole_system
from tests.e2e.traces import Remains
from tests.e2e.watched_store import WatchedStore
from tests.e2e.whole_system import SETTINGS, Scene


@pytest.fixture(scope="session")
def watched_store(infrastructure: Stack) -> Iterator[WatchedStore]:
    with WatchedStore(infrastructure.environment["S3_ENDPOINT_URL"]) as store:
        yield store


@pytest.fixture
def store(watched_store: WatchedStore) -> Iterator[WatchedStore]:
    """The way of the system's workers to their store; as fast as can be again afterwards."""
    yield watched_store
    watched_store.be_fast()


@pytest.fixture(scope="session")
def system(
    infrastructure: Stack, migrated_template: str, watched_store: WatchedStore
) -> Iterator[Stack]:
    """Every process of the project, on a database, virtual host and bucket of their own."""
    settings = SETTINGS | {"S3_ENDPOINT_URL": watched_store.url}
    with infrastructure.scoped("e2e", settings=settings, template=migrated_template) as own:
        own.start()
        yield own


@pytest.fixture(scope="session")
def diskless(
    infrastructure: Stack, migrated_template: str, watched_store: WatchedStore
) -> Iterator[Stack]:
    """The same with chunks staged in the bucket; its gateways and workers share no directory."""
    settings = SETTINGS | {"S3_ENDPOINT_URL": watched_store.url, "STAGING": "s3"}
    with infrastructure.scoped("diskless", settings=settings, template=migrated_template) as own:
        own.start()
        yield own


@pytest.fixture(params=["system", "diskless"], ids=["directory", "s3"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A whole system, with either kind of staging."""
    with whole_system.of(request.getfixturevalue(request.param)) as scene:
        yield scene


@pytest.fixture
def client(system: Stack) -> Iterator[Client]:
    assert system.api_key is not None
    with Client(system.url, api_key=system.api_key) as client:
        yield client


@pytest.fixture
def bucket(system: Stack) -> Bucket:
    return Bucket(system.environment)


@pytest.fixture
def remains(system: Stack) -> Iterator[Remains]:
    remains = Remains(system.environment)
    yield remains
    remains.close()
