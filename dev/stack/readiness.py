"""Readiness probes."""

import asyncio
import base64
import http.client
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from dev.stack.specification import Probe

TIMEOUT: Final = timedelta(seconds=5)
# Every long-running process touches its file every five seconds.
FRESH: Final = timedelta(seconds=15)


async def listens(port: int) -> bool:
    """Return whether a server accepts connections at this port."""
    try:
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def answers_ok(port: int, path: str, *, user: str = "", password: str = "") -> bool:
    """Return whether an HTTP server answers 200."""
    return await asyncio.to_thread(_status, port, path, user, password) == http.client.OK


def port_open(port: int) -> Probe:
    async def probe(_: datetime) -> bool:
        return await listens(port)

    return probe


def http_ok(port: int, path: str) -> Probe:
    async def probe(_: datetime) -> bool:
        return await answers_ok(port, path)

    return probe


def file_touched(file: Path) -> Probe:
    """Return a probe for a liveness file; touches before the process started do not count."""

    async def probe(started: datetime) -> bool:
        return await asyncio.to_thread(_is_fresh, file, started)

    return probe


def _is_fresh(file: Path, started: datetime) -> bool:
    try:
        touched = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except FileNotFoundError:
        return False
    return touched >= started and datetime.now(UTC) - touched < FRESH


def _status(port: int, path: str, user: str, password: str) -> int | None:
    # Not urllib, which would use the machine's proxy.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT.total_seconds())
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    try:
        connection.request("GET", path, headers={"Authorization": f"Basic {credentials}"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
