"""One POST to one endpoint, and its result."""

import asyncio
import codecs
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import httpcore
import httpx
import structlog

from notifier.delivery import outcome
from notifier.delivery.network import NameUnresolved, ReceiverUnreachable
from notifier.delivery.outcome import AttemptOutcome
from schemas.events.envelope import CONTENT_TYPE
from schemas.policy import webhook_urls

log = structlog.stdlib.get_logger(__name__)

ERROR_MAX: Final = 300
"""Characters of an error that are kept; some errors quote the receiver."""

# PostgreSQL refuses NUL in text, and terminals interpret the other control characters.
_UNREADABLE: Final = dict.fromkeys({*range(0x20), 0x7F, *range(0x80, 0xA0)} - {*b"\t\n\r"}, "�")

_PHASES: Final = {
    "connection.connect_tcp.started": "connecting",
    "connection.start_tls.started": "in the TLS handshake",
    "http11.send_request_headers.started": "sending",
    "http11.receive_response_headers.started": "waiting for the response",
    "http11.receive_response_body.started": "reading the response",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """The phases of an attempt; None where a phase did not happen.

    Attributes:
        dns: the look-up of the name.
        connect: the TCP connection, through the proxy if there is one.
        tls: the TLS handshake.
        first_byte: from the sent request to the first byte of the answer.
    """

    dns: timedelta | None = None
    connect: timedelta | None = None
    tls: timedelta | None = None
    first_byte: timedelta | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptResult:
    """The result of one attempt, as the delivery log keeps it.

    Attributes:
        error: why there is no response, or why its body is incomplete; safe to
            show to the endpoint's owner.
        response_excerpt: the start of the response, made readable.
        retry_after: the wait that a throttling receiver asked for.
        remote_address: the address of the connection.
        reused_connection: whether the connection was already open.
    """

    outcome: AttemptOutcome
    started_at: datetime
    duration: timedelta
    status_code: int | None = None
    error: str | None = None
    response_excerpt: str = ""
    retry_after: timedelta | None = None
    remote_address: str | None = None
    reused_connection: bool = False
    timings: Timings = Timings()


async def post(
    client: httpx.AsyncClient,
    *,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    started_at: datetime,
    timeout: timedelta,  # noqa: ASYNC109  # one deadline covers all phases
    response_max: int,
) -> AttemptResult:
    """POST `body` once and return the result; never raises for what the receiver does.

    The status decides: a 2xx whose body breaks off or exceeds the deadline is a
    delivery, because the receiver has accepted the event.

    Args:
        client: from `transport.open_client`.
        url: checked here; its addresses are checked when the connection opens.
        headers: the headers of the signature of `body`.
        body: a CloudEvent in structured JSON, sent unchanged.
        started_at: now; the time in the signature.
        timeout: from the look-up of the name to the last byte of the response.
        response_max: bytes of the response that are read before the connection closes.
    """
    began = time.monotonic()
    exchange = _Exchange()
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await exchange.run(
                client, url=url, headers=headers, body=body, response_max=response_max
            )
    except TimeoutError:
        seconds = timeout.total_seconds()
        exchange.fail(AttemptOutcome.TIMED_OUT, f"{seconds:g} s passed while {exchange.phase}")
    except Exception as error:  # noqa: BLE001  # else an unexpected error would leave the delivery unsettled for ever
        exchange.fail(*_explain(error, phase=exchange.phase))
    duration = timedelta(seconds=time.monotonic() - began)
    return AttemptResult(
        outcome=exchange.outcome,
        status_code=exchange.status,
        error=exchange.error,
        response_excerpt=_excerpt(bytes(exchange.body), size_max=response_max),
        retry_after=exchange.requested_wait(since=started_at + duration),
        started_at=started_at,
        duration=duration,
        remote_address=exchange.remote_address,
        reused_connection=exchange.reused_connection,
    )


@dataclass(kw_only=True)
class _Exchange:
    """The state of a request, updated as it proceeds, so that a failed request has a result."""

    phase: str = "starting"
    outcome: AttemptOutcome = AttemptOutcome.PROTOCOL_ERROR  # until there is a status
    status: int | None = None
    error: str | None = None
    retry_after: str | None = None
    body: bytearray = field(default_factory=bytearray)
    remote_address: str | None = None
    reused_connection: bool = False

    async def run(
        self,
        client: httpx.AsyncClient,
        *,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        response_max: int,
    ) -> None:
        request = client.build_request(
            "POST",
            webhook_urls.parse(url),
            headers={**headers, "content-type": CONTENT_TYPE},
            content=body,
            extensions={"trace": self._trace},
        )
        response = await client.send(request, stream=True)
        try:
            self.status = response.status_code
            self.outcome = outcome.of_status(self.status)
            if self.reused_connection:
                self.remote_address = _remote_address(response.extensions["network_stream"])
            self.retry_after = response.headers.get("retry-after")
            async for chunk in response.aiter_raw():
                # One byte more than is kept shows that the response is longer.
                self.body += chunk[: response_max + 1 - len(self.body)]
                if len(self.body) > response_max:
                    break
        finally:
            # A response read to its end leaves the connection open for the next event.
            await response.aclose()

    def fail(self, kind: AttemptOutcome, error: str) -> None:
        """Record the error; it sets the outcome only if there is no status yet."""
        self.error = _readable(error)[:ERROR_MAX]
        if self.status is None:
            self.outcome = kind

    def requested_wait(self, *, since: datetime) -> timedelta | None:
        if self.outcome is not AttemptOutcome.THROTTLED or self.retry_after is None:
            return None
        return outcome.parse_retry_after(self.retry_after, now=since)

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle httpcore's ``trace`` extension: https://www.encode.io/httpcore/extensions/#trace."""
        self.phase = _PHASES.get(event, self.phase)
        match event:
            case "connection.connect_tcp.complete":
                self.remote_address = _remote_address(info["return_value"])
            case "http11.send_request_headers.started":
                self.reused_connection = self.remote_address is None


def _remote_address(stream: httpcore.AsyncNetworkStream) -> str:
    address, _ = stream.get_extra_info("server_addr")
    return str(address)


def _explain(  # noqa: PLR0911  # a table: one line per kind of error
    error: Exception, *, phase: str
) -> tuple[AttemptOutcome, str]:
    match error:
        case webhook_urls.TargetRefused():
            return AttemptOutcome.TARGET_REFUSED, str(error)
        case NameUnresolved():
            return AttemptOutcome.NAME_UNRESOLVED, str(error)
        case ReceiverUnreachable():
            return AttemptOutcome.UNREACHABLE, str(error)
        case httpcore.ConnectError():
            return AttemptOutcome.TLS_FAILED, f"TLS failed: {error}"
        case httpcore.NetworkError():
            return AttemptOutcome.PROTOCOL_ERROR, f"the connection broke while {phase}"
        case httpcore.ProtocolError():
            return AttemptOutcome.PROTOCOL_ERROR, f"no HTTP while {phase}: {error}"
        case _:
            log.error("attempt.unexpected_error", phase=phase, exc_info=error)
            return AttemptOutcome.PROTOCOL_ERROR, f"{type(error).__name__} while {phase}"


def _excerpt(body: bytes, *, size_max: int) -> str:
    # A character cut at the end is left out; other bytes that are not UTF-8 are replaced.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return _readable(decoder.decode(body[:size_max], final=len(body) <= size_max))


def _readable(text: str) -> str:
    return text.translate(_UNREADABLE)
