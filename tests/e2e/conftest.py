"""The whole system, its processes started as users start them and restarted when they die."""

from collections.abc import Iterator

import pytest

from dev.client import Client
from dev.stack.stack import Stack


@pytest.fixture(scope="session")
def system(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    """Every process of the project, on a database, virtual host and bucket of their own."""
    settings = {
        # A killed worker's upload is free again after this; the default would make tests wait.
        "TRANSFER_LEASE": "5s",
        # Small enough for a transfer of many parts, so that there is a middle to be killed in.
        "S3_PART_SIZE": "5MiB",
        "PDF_TIMEOUT": "20s",
    }
    with infrastructure.scoped("e2e", settings=settings, template=migrated_template) as own:
        own.start()
        yield own


@pytest.fixture
def client(system: Stack) -> Iterator[Client]:
    assert system.api_key is not None
    with Client(system.url, api_key=system.api_key) as client:
        yield client
