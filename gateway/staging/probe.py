"""Checks whether new uploads can be staged."""

from dataclasses import dataclass

from gateway.staging.backends import Staging
from schemas.settings import MIB


@dataclass(frozen=True, kw_only=True)
class StagingHealth:
    """What a probe found.

    Attributes:
        problem: why no upload can be staged; None if there is no reason.
        is_full: whether the problem is that the disk is full.
        used_percent: of the staging disk; None if the bytes are in the bucket or unknown.
    """

    problem: str | None = None
    is_full: bool = False
    used_percent: int | None = None


async def probe(staging: Staging) -> StagingHealth:
    """Return whether new uploads can be staged; waits as long as the disk or the store does."""
    backend = staging.primary
    problem = await backend.problem()
    if problem is not None:
        return StagingHealth(problem=problem)
    try:
        disk = await backend.disk()
    except OSError as error:
        return StagingHealth(problem=f"unreadable: {error.strerror or type(error).__name__}")
    if disk is None:
        return StagingHealth()
    full = (
        f"full: {disk.free_bytes // MIB} MiB are free, and STAGING_RESERVE keeps"
        f" {disk.reserve_bytes // MIB} MiB free; chunks and new uploads are refused with 507"
    )
    return StagingHealth(
        problem=full if disk.is_full else None,
        is_full=disk.is_full,
        used_percent=disk.used_percent,
    )
