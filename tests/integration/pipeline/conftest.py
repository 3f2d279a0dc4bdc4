from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from dev.stack.stack import Stack
from schemas.settings import STAGING_MARKER
from tests.integration.pipeline.bus import connected
from tests.integration.pipeline.workbench import Workbench


@pytest.fixture(scope="session")
def workers(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    """A transfer and an ingest worker, without gateway and notifier."""
    settings = {
        "TRANSFER_LEASE": "3s",
        "TASK_ATTEMPTS": "2",
        "S3_ATTEMPTS": "2",
        "PDF_TIMEOUT": "8s",
        "PDF_MEMORY_MAX": "512MiB",
        "S3_PART_SIZE": "5MiB",
    }
    with infrastructure.scoped("workers", settings=settings, template=migrated_template) as own:
        # There is no gateway on this bench.
        staging = Path(own.environment["STAGING_DIR"])
        staging.mkdir(parents=True, exist_ok=True)
        (staging / STAGING_MARKER).touch()
        own.start_services("transfer", "ingest")
        yield own


@pytest.fixture
def bench(workers: Stack) -> Iterator[Workbench]:
    engine = create_engine(workers.environment["DATABASE_URL"])
    with connected(workers.environment["RABBITMQ_URL"]) as bus:
        yield Workbench(workers, engine=engine, bus=bus)
    engine.dispose()
