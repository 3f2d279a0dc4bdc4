"""The system under measurement; it runs only the services of the benchmark."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import psycopg
from sqlalchemy.engine import make_url

from dev.bench.machine import Machine
from dev.stack.infrastructure import Part
from dev.stack.object_store import ObjectStore, settings_in
from dev.stack.services import SERVICES, Readiness, Service
from dev.stack.stack import Stack
from schemas.settings import ObjectStoreSettings

TENANT: Final = "bench"


def asgi_server(name: str) -> Service:
    """Return the gateway under another server, on the same port."""
    return Service(
        name=name,
        command=("python", "-m", "dev.bench.asgi", name),
        readiness=Readiness.HEALTH_ENDPOINT,
        stop_grace=timedelta(seconds=40),
    )


OTHER_SERVERS: Final = (asgi_server("granian"), asgi_server("hypercorn"))
STAGING_IN_BUCKET: Final = Service(
    name="gateway-s3",
    command=("env", "STAGING=s3", "waybill-gateway"),
    readiness=Readiness.HEALTH_ENDPOINT,
    stop_grace=timedelta(seconds=40),
)
UNLIMITED: Final = Service(
    name="gateway-unlimited",
    command=(
        *("env", "REQUEST_RATE=1000000", "REQUEST_BURST=1000000"),
        *("WAITS_PER_KEY=1000000", "WAITS_MAX=1000000", "WAIT_MAX=10m"),
        "waybill-gateway",
    ),
    readiness=Readiness.HEALTH_ENDPOINT,
    stop_grace=timedelta(seconds=40),
)
READERS_WITHOUT_NLP: Final = Service(
    name="ingest-without-nlp",
    command=(
        *("env", "SPACY_MODEL=none"),
        *("waybill-worker", "--queues", "document_processing", "--concurrency", "2"),
        *("--hostname", "ingest-without-nlp@%h"),
    ),
    readiness=Readiness.LIVENESS_FILE,
    stop_grace=timedelta(seconds=60),
)
SECOND_DELIVERER: Final = Service(
    name="deliver-2",
    command=("waybill-deliver",),
    readiness=Readiness.LIVENESS_FILE,
    stop_grace=timedelta(seconds=30),
)
TABLE: Final = (
    *SERVICES,
    *OTHER_SERVERS,
    STAGING_IN_BUCKET,
    UNLIMITED,
    READERS_WITHOUT_NLP,
    SECOND_DELIVERER,
)

SETTINGS: Final = {"TABLES_ENABLED": "false"}
"""Most benchmarks end with the reading of a document, and run no worker of the steps after it."""

GATEWAYS: Final = frozenset({"gateway", UNLIMITED.name, *(server.name for server in OTHER_SERVERS)})
"""Services that need only the database."""


class System:
    def __init__(self, stack: Stack, *, plots: Path, report: Callable[[str], None]) -> None:
        self.stack = stack
        self.plots = plots
        self.report = report
        self.machine = Machine.here()
        self.questions: Path | None = None
        self.documents: Sequence[Path] = ()
        self.tables: Path | None = None
        self._has_database = False

    @classmethod
    @contextmanager
    def running(
        cls, state_dir: Path, *, plots: Path, report: Callable[[str], None]
    ) -> Iterator[Self]:
        with Stack(state_dir, settings=SETTINGS, table=TABLE) as stack:
            yield cls(stack, plots=plots, report=report)

    @property
    def url(self) -> str:
        return self.stack.url

    @property
    def scratch(self) -> Path:
        """A directory on the measured disk."""
        directory = self.stack.state_dir / "scratch"
        directory.mkdir(exist_ok=True)
        return directory

    @cached_property
    def api_key(self) -> str:
        """A key with every scope."""
        self.bring_up_database()
        return self.stack.create_api_key(tenant=TENANT)

    def other_api_key(self, tenant: str) -> str:
        """Return a key of another tenant, with every scope."""
        self.bring_up_database()
        return self.stack.create_api_key(tenant=tenant)

    @property
    def store(self) -> ObjectStoreSettings:
        """The object store; the first access starts it."""
        self.stack.start_infrastructure(Part.OBJECT_STORE)
        return settings_in(self.stack.environment)

    def bring_up_database(self) -> None:
        if not self._has_database:
            self.stack.start_infrastructure(Part.POSTGRES)
            self.stack.migrate()
            self._has_database = True

    def run_only(self, *services: str) -> None:
        """Run only these services: an idle worker uses the processor too."""
        self.bring_up_database()
        if not GATEWAYS.issuperset(services):
            self.stack.start_infrastructure()
        known = {service.name for service in TABLE}
        for name, process in self.stack.processes.items():
            if name in known - set(services) and process.pid is not None:
                process.stop()
        for name in services:
            if name in self.stack.processes:
                self.stack.processes[name].start()
        if services:  # without a name, the stack starts them all
            self.stack.start_services(*services)

    def pid_of(self, name: str) -> int:
        pid = self.stack.processes[name].pid
        if pid is None:
            raise RuntimeError(f"{name} is not running")
        return pid

    def pids(self) -> dict[str, int]:
        """Return every running process by name."""
        return {
            name: process.pid
            for name, process in self.stack.processes.items()
            if process.pid is not None
        }

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """Yield a connection in autocommit mode."""
        url = make_url(self.stack.environment["DATABASE_URL"]).set(drivername="postgresql")
        with psycopg.connect(
            url.render_as_string(hide_password=False), autocommit=True
        ) as connection:
            yield connection

    def empty_bucket(self) -> None:
        """Delete every object, to free the disk for the next benchmark."""
        client = ObjectStore.from_settings(self.stack.environment).client
        bucket = self.stack.environment["S3_BUCKET"]
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for found in page.get("Contents", []):
                client.delete_object(Bucket=bucket, Key=found["Key"])
