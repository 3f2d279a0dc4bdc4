"""A gateway process."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

import httpx

from tests import trust
from tests.forked_process import fork
from tests.integration.gateway.api import Api
from tests.service_process import ServiceProcess, new_log_file, spawn


@dataclass(frozen=True, kw_only=True)
class Process(ServiceProcess):
    """A running `python -m gateway`, with its port and its log."""

    port: int

    @classmethod
    async def start(cls, *, environment: Mapping[str, str], directory: Path) -> Self:
        """Start a gateway on a free port; return once it listens.

        Raises:
            AssertionError: the process ended or took too long; the message holds the log.
        """
        log_file = new_log_file(directory, name="gateway")
        process = await spawn(
            "gateway", environment={**environment, "GATEWAY_PORT": "0"}, log_file=log_file
        )
        started = cls(process=process, log_file=log_file, port=0)
        try:
            listening = await started.first_logged("gateway.listening")
        except BaseException:
            # The caller has no reference to the process yet and could not end it.
            await started.kill()
            raise
        return replace(started, port=listening["port"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def first_logged(self, event: str) -> dict[str, Any]:
        """Wait for a log line of one event; return the first.

        Raises:
            AssertionError: the process ended or took too long; the message holds the log.
        """
        return (await self.logged_times(event, count=1))[0]

    async def logged_times(self, event: str, *, count: int) -> list[dict[str, Any]]:
        """Wait for `count` log lines of one event; return them.

        Raises:
            AssertionError: the process ended or took too long; the message holds the log.
        """
        await self.until(lambda: len(self.logged(event)) >= count)
        return self.logged(event)


@asynccontextmanager
async def api_of(process: Process, key: str) -> AsyncIterator[Api]:
    """Yield a client of a gateway process, with an API key."""
    async with httpx.AsyncClient(
        base_url=process.url, timeout=60, trust_env=False, verify=trust.PUBLIC
    ) as http:
        yield Api(http, key)


async def run_gateway(**environment: str) -> tuple[int | None, str, str]:
    return await _run("gateway", **environment)


async def run_command(*arguments: str, **environment: str) -> tuple[int | None, str, str]:
    """Run an operator's command: `waybill ARGUMENTS`."""
    return await _run("gateway.administration.cli", *arguments, **environment)


async def _run(service: str, *arguments: str, **environment: str) -> tuple[int | None, str, str]:
    with TemporaryFile() as out, TemporaryFile() as err:
        process = await fork(
            service, *arguments, environment=environment, out=out.fileno(), err=err.fileno()
        )
        code = await process.wait()
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()
