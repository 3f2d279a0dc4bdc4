"""Probes: is the process up, and can it take work."""

import asyncio
from datetime import timedelta
from typing import Final

import msgspec
import structlog
from litestar import Response, Router, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from gateway.db import Database
from gateway.staging import Staging

log = structlog.stdlib.get_logger(__name__)

PATIENCE: Final = timedelta(seconds=2)
"""Less than probes wait by custom, so that they read what is wrong instead of giving up."""


class StagingProbe:
    """Asks staging whether it can be written to; at most one question is under way.

    A call to a disk that hangs cannot be taken back, and keeps its thread until
    the disk answers. Whoever probes meanwhile waits for the same answer.
    """

    def __init__(self, staging: Staging, *, patience: timedelta) -> None:
        self._staging = staging
        self._patience = patience
        self._asking: asyncio.Task[bool] | None = None

    async def ask(self) -> str:
        """Return `ok`, or what is wrong, before patience ends."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._staging.is_writable())
        # `wait` leaves the task alone when the time is up; a timeout would cancel it, and
        # then wait for its thread all the same.
        answered, _ = await asyncio.wait([self._asking], timeout=self._patience.total_seconds())
        if not answered:
            return "not answering"
        return "ok" if self._asking.result() else "not writable"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`checks` names what was looked at, and `ok` or what is wrong."""

    status: str
    checks: dict[str, str] = {}


@get("/live", summary="Is the process up")
async def live() -> Health:
    """Answer at all; a process that cannot is to be restarted."""
    return Health(status="live")


@get(
    "/ready",
    summary="Can work be taken",
    responses={503: ResponseSpec(Health, generate_examples=False, description="not at the moment")},
)
async def ready(
    database: NamedDependency[Database], staging_probe: NamedDependency[StagingProbe]
) -> Response[Health]:
    """Ask the database and the place new uploads go to; 503 keeps traffic away until both answer."""
    answers, place = await asyncio.gather(_database(database), staging_probe.ask())
    checks = {"database": answers, "staging": place}
    is_ready = set(checks.values()) == {"ok"}
    if not is_ready:
        log.warning("health.not_ready", **checks)
    return Response(
        Health(status="ready" if is_ready else "not_ready", checks=checks),
        status_code=200 if is_ready else 503,
        headers={} if is_ready else {"Retry-After": "2"},
    )


async def _database(database: Database) -> str:
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()), database.transaction() as session:
            await session.execute(text("SELECT 1"))
    except (TimeoutError, SQLAlchemyError, OSError) as error:
        return f"unreachable ({type(error).__name__})"
    return "ok"


router = Router("/health", route_handlers=[live, ready], tags=["health"])
