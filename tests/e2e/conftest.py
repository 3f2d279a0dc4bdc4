"""The whole system: its processes are forked from ones that have imported them, and restart when they die."""

from collections.abc import Iterator, Mapping
from typing import Final
from uuid import uuid4

import pytest

from dev.client import Client
from dev.stack.stack import TENANT, Stack
from tests.e2e import killed_deliverers
from tests.e2e.broker_proxy import BrokerProxy
from tests.e2e.deployment import SETTINGS, Deployment
from tests.e2e.lost_messages import Broker

# Imported fixtures are available here.
from tests.e2e.malware import scanning_system, submitter  # noqa: F401  # fixtures
from tests.e2e.store_proxy import StoreProxy
from tests.e2e.traces import Traces
from tests.killable import Killable


@pytest.fixture(scope="session")
def shared_store_proxy(infrastructure: Stack) -> Iterator[StoreProxy]:
    with StoreProxy(infrastructure.environment["S3_ENDPOINT_URL"]) as proxy:
        yield proxy


@pytest.fixture
def store_proxy(shared_store_proxy: StoreProxy) -> Iterator[StoreProxy]:
    """The proxy between the system's workers and their store; its speed limit ends with the test."""
    yield shared_store_proxy
    shared_store_proxy.lift_speed_limit()


@pytest.fixture(scope="session")
def broker_proxy(infrastructure: Stack) -> Iterator[BrokerProxy]:
    """The proxy between `system` and a virtual host of its own."""
    name = f"e2e-broker-{uuid4().hex[:6]}"
    with BrokerProxy(infrastructure.create_vhost(name)["RABBITMQ_URL"]) as proxy:
        yield proxy
    infrastructure.delete_vhost(name)


@pytest.fixture(scope="session")
def system(
    infrastructure: Stack,
    migrated_template: str,
    shared_store_proxy: StoreProxy,
    broker_proxy: BrokerProxy,
) -> Iterator[Stack]:
    """Every process of the project, on a database, virtual host and bucket of their own."""
    settings = SETTINGS | {
        "S3_ENDPOINT_URL": shared_store_proxy.url,
        "RABBITMQ_URL": broker_proxy.url,
        # The vectors of a new model are made in turns, which begin so often.
        "STEP_WATCH_EVERY": "2s",
    }
    with infrastructure.scoped("e2e", settings=settings, template=migrated_template) as own:
        own.start()
        yield own


NO_STEPS_AFTER_READING: Final = {"TABLES_ENABLED": "false", "EMBEDDING_MODEL": "none"}
"""These systems have no worker for the tables and the vectors of documents: no such step waits."""


def start_without_long_documents(system: Stack) -> None:
    """Start a system on a migrated database, but neither the batch lane nor OCR."""
    system.api_key = system.create_api_key(tenant=TENANT)
    system.start_services("gateway", "relay", "deliver", "transfer", "ingest", "metadata", "beat")


@pytest.fixture(scope="session")
def bucket_staging_system(
    infrastructure: Stack, migrated_template: str, shared_store_proxy: StoreProxy
) -> Iterator[Stack]:
    """A system that stages chunks in the bucket; its gateways and workers share no directory."""
    settings = (
        SETTINGS
        | NO_STEPS_AFTER_READING
        | {"S3_ENDPOINT_URL": shared_store_proxy.url, "STAGING": "s3"}
    )
    with infrastructure.scoped("e2e-s3", settings=settings, template=migrated_template) as own:
        start_without_long_documents(own)
        yield own


@pytest.fixture(scope="session")
def forgetful_system(
    infrastructure: Stack, migrated_template: str, shared_store_proxy: StoreProxy
) -> Iterator[Stack]:
    """A system of which many messages can be lost at once, and are soon found missing."""
    settings = (
        SETTINGS
        | NO_STEPS_AFTER_READING
        | {
            "S3_ENDPOINT_URL": shared_store_proxy.url,
            "TENANT_STEPS_MAX": "200",
            "STEP_OVERDUE": "5s",
            "STEP_WATCH_EVERY": "1s",
        }
    )
    with infrastructure.scoped("e2e-lost", settings=settings, template=migrated_template) as own:
        start_without_long_documents(own)
        yield own


@pytest.fixture
def forgetful_deployment(forgetful_system: Stack) -> Iterator[Deployment]:
    with Deployment.of(forgetful_system) as deployment:
        yield deployment


@pytest.fixture
def broker_process(
    infrastructure: Stack, infrastructure_processes: Mapping[str, Killable]
) -> Broker:
    data = infrastructure.state_dir / "rabbitmq" / "mnesia"
    return Broker(
        process=infrastructure_processes["rabbitmq"], data=data if data.is_dir() else None
    )


@pytest.fixture(params=["system", "bucket_staging_system"], ids=["directory", "s3"])
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A whole system, with each kind of staging in turn."""
    with Deployment.of(request.getfixturevalue(request.param)) as deployment:
        yield deployment


@pytest.fixture
def reading_deployment(system: Stack) -> Iterator[Deployment]:
    """A whole system for tests of what happens after the transfer, with one kind of staging."""
    with Deployment.of(system) as deployment:
        yield deployment


@pytest.fixture
def client(system: Stack) -> Iterator[Client]:
    assert system.api_key is not None
    with Client(system.url, api_key=system.api_key) as client:
        yield client


@pytest.fixture
def traces(system: Stack) -> Iterator[Traces]:
    traces = Traces(system.environment)
    yield traces
    traces.close()


@pytest.fixture(scope="module")
def delivering(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    """What delivers webhooks, with retries that come soon."""
    with infrastructure.scoped(
        "delivering", settings=killed_deliverers.SETTINGS, template=migrated_template
    ) as own:
        own.start_services(*killed_deliverers.SERVICES)
        yield own
