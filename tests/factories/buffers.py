"""Small pools of buffers."""

from datetime import timedelta

from gateway.staging import BufferLimits, Buffers


def buffers_of(
    size_bytes: int,
    *,
    count: int = 8,
    per_tenant: int | None = None,
    spare_max: int = 8,
    wait_max: timedelta = timedelta(seconds=5),
    idle_check: timedelta = timedelta(hours=1),
) -> Buffers:
    return Buffers(
        BufferLimits(count=count, per_tenant=per_tenant or count, wait_max=wait_max),
        size_bytes=size_bytes,
        spare_max=spare_max,
        idle_check=idle_check,
    )
