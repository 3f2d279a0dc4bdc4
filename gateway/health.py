"""Health checks for orchestrators and load balancers."""

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
    """`checks` maps each dependency to `ok` or to the problem."""

    status: str
    checks: dict[str, str] = {}


class Readiness(Health, frozen=True, kw_only=True):
    """`staging_used_percent` is the used share of the staging disk.

    It is null if uploads are staged in the bucket, or if the disk does not answer. The check
    `staging` is `full` once only `STAGING_RESERVE` is free.
    """

    staging_used_percent: int | None = None


@get("/live", summary="Check that the process runs")
async def live() -> Health:
    """Answer 200. A process that does not answer must be restarted."""
    return Health(status="live")


@get(
    "/ready",
    summary="Check that the process can accept work",
    responses={503: ResponseSpec(Readiness, generate_examples=False, description="not ready")},
)
async def ready(request: ApiRequest) -> Response[Readiness]:
    """Check the database and the staging of new uploads; 503 until both work."""
    database, staging = await asyncio.gather(
        _database(request.context.database), request.context.staging_probe.ask()
    )
    checks = {"database": database, "staging": staging.check}
    is_ready = set(checks.values()) == {"ok"}
    if not is_ready:
        log.warning("health.not_ready", **checks)
    return Response(
        Readiness(
            status="ready" if is_ready else "not_ready",
            checks=checks,
            staging_used_percent=staging.used_percent,
        ),
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
