"""Processes of a service, forked from one that has imported its modules.

Python and the imports of a service take seconds of CPU; a fork takes a hundredth of this. A forked
process leads a session of its own, and is killed when the process that it was forked from ends.
"""

import asyncio
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from dev.stack.checkout import CHECKOUT

MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "alembic.__main__": (
        "alembic.__main__",
        # What the migrations import, and what Alembic and SQLAlchemy import late.
        "alembic.autogenerate.api",
        "schemas.runtime.settings_loader",
        "schemas.tables",
        "sqlalchemy.dialects.postgresql.psycopg",
    ),
    "gateway": (
        "gateway.__main__",
        "gateway.staging.bucket",
        # What Litestar and anyio import late.
        "anyio._backends._asyncio",
        "litestar.plugins.attrs",
        "litestar.plugins.pydantic",
    ),
    "gateway.administration.cli": (
        "gateway.administration.cli",
        *(
            f"gateway.administration.{name}"
            for name in ("dead_letters", "keys", "quotas", "secrets", "tenants", "webhooks")
        ),
        "schemas.runtime.logging",
    ),
    "notifier": ("notifier.__main__",),
    "tests.integration.pipeline.maintenance.sweep_program": (
        "tests.integration.pipeline.maintenance.sweep_program",
    ),
    "tests.integration.storage.transfer_program": (
        "tests.integration.storage.transfer_program",
        "schemas.runtime.s3",
    ),
    "pipeline": (
        "pipeline.__main__",
        # What `pipeline.worker` imports before it reads its settings, and what Celery imports late.
        "celery.apps.worker",
        "celery.concurrency.prefork",
        "celery.fixups.django",
        "celery.worker.components",
        "celery.worker.strategy",
        "kombu.transport.pyamqp",
        "pipeline.beat",
        "pipeline.ingest.extractors",
        "pipeline.task_routes",
        "tests.warm_worker",
    ),
}
"""What is imported before a service forks, the module that it runs first."""

AT_START: Final = (
    "LD_PRELOAD",
    "FAKETIME",
    "FAKETIME_DONT_FAKE_MONOTONIC",
    "DONT_FAKE_MONOTONIC",
    "NO_FAKE_STAT",
)
"""Variables that have an effect only when an interpreter starts."""


@dataclass(kw_only=True)
class ForkedProcess:
    """A running or ended `python -m SERVICE ARGUMENTS`."""

    pid: int
    connection: socket.socket
    returncode: int | None = None
    _ended: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self._ended = asyncio.create_task(self._await_end())

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Return the exit code once the process has ended."""
        await asyncio.shield(self._ended)
        assert self.returncode is not None
        return self.returncode

    async def _await_end(self) -> None:
        with self.connection:
            loop = asyncio.get_running_loop()
            self.returncode = int(await loop.sock_recv(self.connection, 64))


async def fork(
    service: str,
    *arguments: str,
    environment: Mapping[str, str],
    out: int,
    err: int,
) -> ForkedProcess:
    """Start ``python -m SERVICE ARGUMENTS`` with this environment and no other.

    Args:
        service: one of `MODULES`.
        arguments: of its command line.
        environment: all of its variables.
        out: descriptor of its standard output.
        err: descriptor of its standard error.
    """
    request = {"arguments": arguments, "environment": dict(environment)}
    loop = asyncio.get_running_loop()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(0)
        at_start = {name: environment[name] for name in AT_START if name in environment}
        await loop.sock_connect(connection, _server_of(service, **at_start))
        socket.send_fds(connection, [json.dumps(request).encode()], [out, err])
        pid = int(await loop.sock_recv(connection, 64))
    except BaseException:
        connection.close()
        raise
    return ForkedProcess(pid=pid, connection=connection)


@cache
def _server_of(service: str, **environment: str) -> str:
    """Start the server of a service in this environment; return its address."""
    directory = tempfile.mkdtemp(prefix="waybill-fork-")
    address = f"{directory}/socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(listener.fileno()), *MODULES[service]],
            cwd=CHECKOUT,
            # numpy would start threads when it is imported, which do not survive a fork.
            env={"OPENBLAS_NUM_THREADS": "1", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
    atexit.register(_end, server, directory)
    return address


def _end(server: subprocess.Popen[bytes], directory: str) -> None:
    server.communicate()
    Path(directory, "socket").unlink()
    Path(directory).rmdir()
