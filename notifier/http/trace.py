"""The progress of one request, for the log of attempts."""

from dataclasses import dataclass
from typing import Final

EXTENSION: Final = "waybill.trace"
"""The request's extension that holds its `Trace`."""


@dataclass(slots=True, kw_only=True)
class Trace:
    """Updated by the transport while the request proceeds, so that a failed request has one too.

    Attributes:
        phase: what the request waits for, as a participle.
        share: who asks, such as a tenant; the look-ups of a share are bounded.
        remote_address: the address of the connection, or of the target behind a proxy.
        is_reused: the connection had carried a request before.
        dns: seconds of the look-up; None without one.
        connect: seconds until the TCP connection, the proxy's answer included.
        tls: seconds of the handshake.
        first_byte: seconds from the sent request to the first byte of the answer.
    """

    share: str | None = None
    phase: str = "starting"
    remote_address: str | None = None
    is_reused: bool = False
    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
