"""Probes: is the process up, and can it take work."""

import asyncio

import msgspec
import structlog
from litestar import Response, Router, get
from litestar.openapi.datastructures import ResponseSpec
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from gateway.context import ApiRequest
from gateway.db import Database
from gateway.staging.probe import PROBE_TIMEOUT

log = structlog.stdlib.get_logger(__name__)


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
async def ready(request: ApiRequest) -> Response[Health]:
    """Ask the database and the place new uploads go to; 503 keeps traffic away until both answer."""
    database, place = await asyncio.gather(
        _database(request.context.database), request.context.staging_probe.ask()
    )
    checks = {"database": database, "staging": place}
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
        async with (
            asyncio.timeout(PROBE_TIMEOUT.total_seconds()),
            database.transaction() as session,
        ):
            await session.execute(text("SELECT 1"))
    except (TimeoutError, SQLAlchemyError, OSError) as error:
        return f"unreachable ({type(error).__name__})"
    return "ok"


router = Router("/health", route_handlers=[live, ready], tags=["health"])
