"""The whole system on this machine, controlled from Python.

::

    with Stack(Path("var/test")) as stack:
        stack.start_infrastructure()
        with stack.scoped("journey", settings={"UPLOAD_TTL": "PT10S"}) as own:
            own.start()
            own.processes["transfer"].kill()
            own.processes["transfer"].wait_ready()
"""

import asyncio
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from dev.stack import (
    databases,
    environment,
    identity,
    infrastructure,
    ownership,
    ports,
    services,
    supervisor,
    vhosts,
)
from dev.stack.background_loop import BackgroundLoop
from dev.stack.checkout import PROGRAMS
from dev.stack.errors import CommandFailed, PortTaken
from dev.stack.execution import Executed, Execution
from dev.stack.handle import ProcessHandle
from dev.stack.infrastructure import Part, Store
from dev.stack.object_store import ObjectStore
from dev.stack.services import SERVICES, Readiness, Service
from dev.stack.specification import Report
from dev.stack.state import Phase
from dev.stack.supervisor import Supervisor

TENANT: Final = "local"
EVERY_PART: Final = tuple(Part)
# After RabbitMQ's default of 30 minutes the message of a long transfer would be redelivered.
CONSUMER_TIMEOUT: Final = timedelta(hours=2)


def _silent(_: str) -> None:
    """Ignore progress."""


class Stack:
    """Infrastructure, services, or both, in one state directory; stops them on exit.

    Args:
        state_dir: data, logs and secrets. A later stack in the same directory uses the same
            data. Two stacks cannot share a directory.
        settings: environment of the services; overrides the stack's own. With
            `DATABASE_URL`, `RABBITMQ_URL` or `S3_ENDPOINT_URL`, the caller supplies that
            part and the stack does not start it.
        table: the known services.
        consumer_timeout: the broker redelivers a message unacknowledged for longer.
        execution: how processes are started and commands are run.
        fsync: whether committed rows survive a power failure. Without it, PostgreSQL is faster and
            its rows still survive the death of any process.
        report: takes lines of progress.

    Raises:
        StackAlreadyRunning: another process runs a stack in this directory.
        SettingMissing: `settings` names an object store without credentials.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        table: Sequence[Service] = SERVICES,
        consumer_timeout: timedelta = CONSUMER_TIMEOUT,
        fsync: bool = True,
        execution: Execution | None = None,
        report: Report = _silent,
    ) -> None:
        self.state_dir = state_dir.resolve()
        self.api_key: str | None = None
        self._settings = dict(settings or {})
        self._supplied = infrastructure.supplied(self._settings)
        self._table = table
        self._execution = execution or Executed()
        self._report = report
        self._lock = supervisor.lock(self.state_dir)
        self._identity = identity.load_or_create(self.state_dir / "identity.json")
        self._parts = infrastructure.local_parts(
            self.state_dir, self._identity, consumer_timeout=consumer_timeout, fsync=fsync
        )
        self._stores = infrastructure.local_stores(self.state_dir, self._identity)
        self._started_parts: set[Part] = set()
        self._started_stores: set[Store] = set()
        self._supervisor = Supervisor(
            self.state_dir,
            stack_id=self._identity.stack_id,
            execution=self._execution,
            report=report,
        )
        self._loop = BackgroundLoop(f"stack in {self.state_dir}")
        self._loop.run(self._supervisor.enter(Phase.STARTING))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything in reverse order of its start and release the directory.

        Raises:
            ProcessDidNotEnd: a process survived SIGKILL.
        """
        try:
            self._loop.run(self._supervisor.stop())
        finally:
            self._loop.close()
            self._lock.close()

    @property
    def environment(self) -> dict[str, str]:
        """The settings of every process, as environment variables."""
        settings = {
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self._identity.ports["gateway"]),
            "STAGING_DIR": str(self.state_dir / "staging"),
            "WORK_DIR": str(self.state_dir / "work"),
            "SECRET_KEYS": self._identity.secret_keys,
            "WEBHOOK_ALLOW_LOOPBACK": "true",
        }
        for part, local in self._parts.items():
            settings |= self._supplied.get(part) or local.environment
        return settings | self._settings

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['GATEWAY_PORT']}"

    @property
    def processes(self) -> Mapping[str, ProcessHandle]:
        return {
            name: ProcessHandle(process, loop=self._loop)
            for name, process in self._supervisor.processes.items()
        }

    def kill(self, name: str) -> None:
        """Send SIGKILL to a process; the supervisor starts it again."""
        self.processes[name].kill()

    def start(self) -> None:
        """Start everything in order; return when the whole system is ready."""
        self._loop.run(self._prepare())
        self.create_bucket(self.environment["S3_BUCKET"])
        self.start_services()
        self.declare_running()

    def declare_running(self) -> None:
        """Record in the state file that the start is complete."""
        self._loop.run(self._supervisor.enter(Phase.RUNNING))

    def start_infrastructure(self, *parts: Part) -> None:
        """Start these parts, or all of them, concurrently, unless they run already."""
        wanted = parts or EVERY_PART
        self._loop.run(self._bring_up(wanted))
        if Part.OBJECT_STORE in wanted:
            self.create_bucket(self.environment["S3_BUCKET"])

    def start_store(self, store: Store) -> dict[str, str]:
        """Start an object store for tests unless it runs; return its settings.

        The stack's services keep using the stack's own store.
        """
        self._loop.run(self._bring_up_store(store))
        return self._stores[store].environment

    def migrate(self) -> None:
        """Migrate the database to the newest schema."""
        began = time.monotonic()
        self.run(services.MIGRATION)
        self._report(f"schema up to date after {time.monotonic() - began:.1f} s")

    def create_api_key(self, *, tenant: str) -> str:
        """Return a new API key with every scope; a tenant that is missing is created."""
        printed = self.run(services.api_key_creation(tenant=tenant))
        return printed.partition("key: ")[2].strip()

    def start_services(self, *names: str) -> None:
        """Start these services, or all of them, concurrently; return when they are ready.

        Raises:
            PortTaken: `GATEWAY_PORT` is set to a port in use.
        """
        known = {service.name: service for service in self._table}
        wanted = [known[name] for name in names or known if name not in self.processes]
        if any(each.readiness is Readiness.HEALTH_ENDPOINT for each in wanted):
            self._require_free(int(self.environment["GATEWAY_PORT"]))
        for directory in ("STAGING_DIR", "WORK_DIR"):
            Path(self.environment[directory]).mkdir(parents=True, exist_ok=True)
        (self.state_dir / "liveness").mkdir(exist_ok=True)
        self._loop.run(self._start_services(wanted))

    def run(self, command: Sequence[str], *, settings: Mapping[str, str] | None = None) -> str:
        """Run a program with the stack's settings and return its output.

        Args:
            command: a program of the project's environment and its arguments.
            settings: override the stack's settings for this program.

        Raises:
            CommandFailed: its exit code was not zero.
        """
        result = self._loop.run(
            self._execution.run(
                command, environment=self._process_environment() | dict(settings or {})
            )
        )
        if result.returncode != 0:
            raise CommandFailed(
                command, exit_code=result.returncode, output=result.stdout + result.stderr
            )
        return result.stdout

    def create_database(self, name: str, *, template: str | None = None) -> dict[str, str]:
        """Create an empty database, or a copy of `template`; return its settings."""
        url = databases.create(self.environment["DATABASE_URL"], name=name, template=template)
        return {"DATABASE_URL": url}

    def drop_database(self, name: str) -> None:
        databases.drop(self.environment["DATABASE_URL"], name=name)

    def create_vhost(self, name: str) -> dict[str, str]:
        """Create an empty virtual host on the broker; return its settings."""
        return {"RABBITMQ_URL": vhosts.create(self.environment, name=name)}

    def delete_vhost(self, name: str) -> None:
        vhosts.delete(self.environment, name=name)

    def create_bucket(self, name: str) -> dict[str, str]:
        """Create a bucket unless it exists; return its settings."""
        ObjectStore.from_settings(self.environment).create_bucket(name)
        return {"S3_BUCKET": name}

    @contextmanager
    def scoped(
        self,
        name: str,
        *,
        settings: Mapping[str, str] | None = None,
        template: str | None = None,
        execution: Execution | None = None,
    ) -> Iterator["Stack"]:
        """Yield a stack that shares only the infrastructure of this stack.

        It has its own database (empty, or a copy of `template`), virtual host, bucket,
        staging directory, ports and logs. Database and virtual host are removed afterwards.
        """
        unique = f"{name}-{secrets.token_hex(3)}"
        shared = {
            setting: value
            for setting, value in self.environment.items()
            if setting not in {"GATEWAY_PORT", "STAGING_DIR", "WORK_DIR"}
        }
        own = {
            **self.create_database(unique, template=template),
            **self.create_vhost(unique),
            **self.create_bucket(unique),
        }
        try:
            with Stack(
                self.state_dir / "scoped" / unique,
                settings=shared | own | dict(settings or {}),
                table=self._table,
                execution=execution or self._execution,
                report=self._report,
            ) as stack:
                yield stack
        finally:
            self.delete_vhost(unique)
            self.drop_database(unique)

    def _process_environment(self) -> dict[str, str]:
        return {
            **environment.of_services(PROGRAMS),
            **self.environment,
            ownership.MARKER: self._identity.stack_id,
        }

    def _require_free(self, port: int) -> None:
        if not ports.is_free(port):
            raise PortTaken("gateway", port=port)

    async def _prepare(self) -> None:
        """Start every part; migrate the database while the broker still starts."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bring_up((Part.RABBITMQ, Part.OBJECT_STORE)))
            group.create_task(self._prepare_database())

    async def _prepare_database(self) -> None:
        await self._bring_up((Part.POSTGRES,))
        await asyncio.to_thread(self.migrate)
        self.api_key = await asyncio.to_thread(self.create_api_key, tenant=TENANT)

    async def _bring_up(self, wanted: Sequence[Part]) -> None:
        missing = set(wanted) - self._supplied.keys() - self._started_parts
        async with asyncio.TaskGroup() as group:
            for part in missing:
                group.create_task(self._bring_up_part(part))

    async def _bring_up_store(self, store: Store) -> None:
        if store in {Store.SWIFT, Store.SWIFT_TLS} and Part.OBJECT_STORE not in self._started_parts:
            await self._bring_up_part(Part.OBJECT_STORE)
        if store is not Store.SWIFT and store not in self._started_stores:
            began = time.monotonic()
            await self._stores[store].bring_up(self._supervisor)
            self._started_stores.add(store)
            self._report(f"{store} ready after {time.monotonic() - began:.1f} s")

    async def _bring_up_part(self, part: Part) -> None:
        began = time.monotonic()
        await self._parts[part].bring_up(self._supervisor)
        self._started_parts.add(part)
        self._report(f"{part} ready after {time.monotonic() - began:.1f} s")

    async def _start_services(self, wanted: Sequence[Service]) -> None:
        began = time.monotonic()
        process_environment = self._process_environment()
        await self._supervisor.start(
            *(
                services.specification(
                    service, environment=process_environment, state_dir=self.state_dir
                )
                for service in wanted
            )
        )
        names = ", ".join(service.name for service in wanted)
        self._report(f"{names} ready after {time.monotonic() - began:.1f} s")


def discard(state_dir: Path) -> None:
    """End remaining processes of a stack and delete its directory.

    Raises:
        StackAlreadyRunning: a stack runs in this directory.
    """
    with supervisor.lock(state_dir):
        shutil.rmtree(state_dir)
