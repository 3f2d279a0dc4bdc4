"""The project's processes: one table for the local stack and compose.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from dev.stack import readiness
from dev.stack.checkout import CHECKOUT
from dev.stack.specification import Probe, ProcessSpec


class Readiness(StrEnum):
    """How a service shows that it is ready."""

    HEALTH_ENDPOINT = "GET /health/ready answers 200"
    LIVENESS_FILE = "LIVENESS_FILE exists and is touched every five seconds"


@dataclass(frozen=True, kw_only=True)
class Service:
    name: str
    command: tuple[str, ...]
    readiness: Readiness
    stop_grace: timedelta


def _worker(name: str, *, queues: str, concurrency: int) -> Service:
    return Service(
        name=name,
        command=(
            "waybill-worker",
            *("--queues", queues, "--concurrency", str(concurrency), "--hostname", f"{name}@%h"),
        ),
        readiness=Readiness.LIVENESS_FILE,
        # A worker finishes its task first, and Celery's shutdown may take 30 s.
        stop_grace=timedelta(seconds=60),
    )


SERVICES: Final = (
    Service(
        name="gateway",
        command=("waybill-gateway",),
        readiness=Readiness.HEALTH_ENDPOINT,
        # The server gives open requests 30 s.
        stop_grace=timedelta(seconds=40),
    ),
    Service(
        name="relay",
        command=("waybill-relay",),
        readiness=Readiness.LIVENESS_FILE,
        stop_grace=timedelta(seconds=30),
    ),
    Service(
        name="deliver",
        command=("waybill-deliver",),
        readiness=Readiness.LIVENESS_FILE,
        stop_grace=timedelta(seconds=30),
    ),
    # The sweeps need the staging directory.
    _worker("transfer", queues="uploads,maintenance", concurrency=2),
    # With two processes, a document that takes its whole share delays only half of the others.
    _worker("ingest", queues="document_processing", concurrency=2),
    # Of its own: page count, title and thumbnail do not wait for the reading of other documents.
    _worker("metadata", queues="metadata_extraction", concurrency=1),
    _worker("batch", queues="batch_processing", concurrency=1),
    _worker("ocr", queues="ocr_processing", concurrency=1),
    # With two processes, new documents do not wait while the vectors of a new model are made.
    _worker("index", queues="search_indexing,search_maintenance", concurrency=2),
    # With two processes, a replay or a small export does not wait for a large export.
    _worker("exports", queues="exports", concurrency=2),
    Service(
        name="beat",
        command=("waybill-beat",),
        readiness=Readiness.LIVENESS_FILE,
        stop_grace=timedelta(seconds=10),
    ),
)

MIGRATION: Final = ("alembic", "upgrade", "head")


def api_key_creation(*, tenant: str) -> tuple[str, ...]:
    """Return the command that prints a new key with every scope, after `key: `."""
    return ("waybill", "keys", "create", tenant)


def specification(
    service: Service, *, environment: Mapping[str, str], state_dir: Path
) -> ProcessSpec:
    """Return how the supervisor runs a service of the stack in `state_dir`."""
    touched = state_dir / "liveness" / service.name
    probe: Probe
    match service.readiness:
        case Readiness.HEALTH_ENDPOINT:
            own: dict[str, str] = {}
            probe = readiness.http_ok(int(environment["GATEWAY_PORT"]), "/health/ready")
        case Readiness.LIVENESS_FILE:
            own = {"LIVENESS_FILE": str(touched)}
            probe = readiness.file_touched(touched)
    return ProcessSpec(
        name=service.name,
        command=service.command,
        environment={**environment, **own},
        directory=CHECKOUT,
        is_ready=probe,
        stop_grace=service.stop_grace,
    )
