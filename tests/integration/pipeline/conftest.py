from collections.abc import Iterator

import pytest

from dev.stack.stack import Stack

# Imported fixtures are available here.
from tests.integration.pipeline.killed_exports import exporting, exports  # noqa: F401  # fixtures
from tests.integration.pipeline.workbench import Workbench, prepare_staging, workbench


@pytest.fixture(scope="session")
def workers(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    """The workers, without gateway and notifier."""
    settings = {
        "TRANSFER_LEASE": "3s",
        "TASK_ATTEMPTS": "2",
        "S3_ATTEMPTS": "2",
        "PDF_TIMEOUT": "20s",
        "PDF_MEMORY_MAX": "512MiB",
        "S3_PART_SIZE": "5MiB",
        "TABLES_ENABLED": "false",  # the bench publishes the events of the steps that it tests
    }
    with infrastructure.scoped("workers", settings=settings, template=migrated_template) as own:
        prepare_staging(own)
        own.start_services("transfer", "ingest", "metadata", "batch")
        yield own


@pytest.fixture
def bench(workers: Stack) -> Iterator[Workbench]:
    with workbench(workers) as bench:
        yield bench
