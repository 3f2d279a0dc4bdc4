"""Health checks for orchestrators and load balancers."""

import msgspec
from litestar import Response, Router, get
from litestar.openapi.datastructures import ResponseSpec

from gateway.context import ApiRequest
from gateway.readiness import Status


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`checks` maps each dependency to `ok` or to the problem."""

    status: str
    checks: dict[str, str] = {}


class Readiness(Health, frozen=True, kw_only=True):
    """`status` is `ready`, `degraded` or `not_ready`.

    A problem begins with a stable word and a colon, such as `full:`; the rest is for operators.
    `staging_used_percent` is the used share of the staging disk. It is null if uploads are staged
    in the bucket, or if the disk does not answer.
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
    """Check the database with its migration, the clock, the staging of new uploads and the listener.

    200 if the gateway works, or is `degraded`: a part of the API is refused or slow at every gateway
    alike, such as uploads while the staging disk is full. 503 if other gateways should answer.
    Probes may overlap and cost nothing: they share what was found within the last second.
    """
    found = await request.context.readiness.ask()
    is_ready = found.status != Status.NOT_READY
    return Response(
        Readiness(
            status=found.status,
            checks=found.reasons,
            staging_used_percent=found.staging_used_percent,
        ),
        status_code=200 if is_ready else 503,
        headers={} if is_ready else {"Retry-After": "2"},
    )


router = Router("/health", route_handlers=[live, ready], tags=["health"])
