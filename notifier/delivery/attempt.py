"""One POST to one endpoint, and its result."""

import asyncio
import codecs
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Final, NamedTuple

import httpx
import structlog

from notifier.delivery import outcome
from notifier.delivery.outcome import AttemptOutcome
from notifier.http import errors, trace, transport
from notifier.http.answer import Answer
from notifier.http.trace import Trace
from notifier.http.transport import Exchange
from schemas.events.envelope import CONTENT_TYPE
from schemas.policy import webhook_urls

log = structlog.stdlib.get_logger(__name__)

ERROR_MAX: Final = 300
"""Characters of an error that are kept; some errors quote the receiver."""

EXCERPT_TIME: Final = timedelta(seconds=2)
"""For the body of an answer that is no success. The body only serves the log."""

SUCCESS_EXCERPT_TIME: Final = timedelta(milliseconds=50)
"""For the body of a 2xx, which most receivers send with the head. The attempt is settled then."""

URLS_MAX: Final = 4096
"""Checked URLs that are kept: the check takes as long as the request."""

# PostgreSQL refuses NUL in text, and terminals interpret the other control characters.
_UNREADABLE: Final = dict.fromkeys({*range(0x20), 0x7F, *range(0x80, 0xA0)} - {*b"\t\n\r"}, "�")

# A second of these would let a receiver, or a proxy, read the request in another way.
_RESERVED: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te"}
)

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


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
        error: why there is no response, or what is wrong with it; safe to show to the endpoint's
            owner.
        response_excerpt: the start of the response, made readable.
        retry_after: the wait that a receiver asked for with a failure.
        remote_address: the address of the connection.
        reused_connection: whether the connection was already open.
        timings: of the phases.
        request_headers: as sent, secrets included.
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
    timings: Timings = field(default_factory=Timings)
    request_headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)


async def post(
    client: httpx.AsyncClient,
    *,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    started_at: datetime,
    timeout: timedelta,  # noqa: ASYNC109  # one deadline covers all phases
    response_max: int,
    share: str | None = None,
) -> AttemptResult:
    """POST `body` once and return the result; never raises for what the receiver does.

    The status decides: a 2xx is a delivery as soon as its head is read, because the receiver has
    accepted the event. The body is only for the log.

    Args:
        client: from `transport.open_client`.
        url: checked here; its addresses are checked when the connection opens.
        headers: the headers of the signature of `body`, and those of the endpoint.
        body: a CloudEvent in structured JSON, sent unchanged.
        started_at: now; the time in the signature.
        timeout: from the look-up of the name to the head of the response.
        response_max: bytes of the response that are read before the connection closes.
        share: whose delivery this is, such as a tenant's; bounds concurrent look-ups of names.

    Raises:
        RequestRefused: a header is one that the transport owns, or has a line end.
    """
    began = time.monotonic()
    attempt = _Attempt(trace=Trace(share=share))
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await attempt.run(
                client, url=url, headers=headers, body=body, response_max=response_max
            )
    except TimeoutError:
        seconds = timeout.total_seconds()
        attempt.fail(AttemptOutcome.TIMED_OUT, f"{seconds:g} s passed while {attempt.trace.phase}")
    except errors.RequestRefused:
        raise
    except Exception as error:  # noqa: BLE001  # else an unexpected error would leave the delivery unsettled for ever
        attempt.fail(*_explain(error, phase=attempt.trace.phase))
    duration = timedelta(seconds=time.monotonic() - began)
    return attempt.result(started_at=started_at, duration=duration, response_max=response_max)


@dataclass(kw_only=True, slots=True)
class _Attempt:
    """The state of an attempt, updated as it proceeds, so that a failed attempt has a result."""

    trace: Trace
    outcome: AttemptOutcome = AttemptOutcome.PROTOCOL_ERROR  # until there is a status
    status: int | None = None
    error: str | None = None
    answer: Answer | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)

    async def run(
        self,
        client: httpx.AsyncClient,
        *,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        response_max: int,
    ) -> None:
        target = _target(url)
        self.headers = _headers(target.host, headers, body=body)
        request = httpx.Request(
            "POST",
            target.url,
            headers=[
                (name.encode("ascii"), value.encode("latin-1"))
                for name, value in self.headers.items()
            ],
            # Not `content`, for which httpx computes headers.
            stream=httpx.ByteStream(body),
            extensions={trace.EXTENSION: self.trace, transport.BODY_MAX: response_max},
        )
        response = await client.send(request, stream=True)
        exchange: Exchange = response.extensions[transport.EXCHANGE]
        try:
            self.status = response.status_code
            self.outcome = outcome.of_status(self.status)
            self.answer = exchange.answer
            if not exchange.answer.complete:
                self.trace.phase = "reading the response"
                await self._read_excerpt(exchange)
        finally:
            exchange.end()

    async def _read_excerpt(self, exchange: Exchange) -> None:
        if self.outcome is AttemptOutcome.DELIVERED:
            await exchange.rest(within=SUCCESS_EXCERPT_TIME.total_seconds())
        else:
            await exchange.rest(within=EXCERPT_TIME.total_seconds())
            if not exchange.answer.complete:
                self.error = f"the rest of the response took more than {EXCERPT_TIME.seconds} s"

    def fail(self, kind: AttemptOutcome, error: str) -> None:
        """Record the error; it sets the outcome only if there is no status yet."""
        self.error = error
        if self.status is None:
            self.outcome = kind

    def result(
        self, *, started_at: datetime, duration: timedelta, response_max: int
    ) -> AttemptResult:
        error, excerpt, retry_after = self.error, "", None
        if self.answer is not None:
            error = error or self.answer.error
            excerpt = _excerpt(
                bytes(self.answer.body[:response_max]),
                is_whole=self.answer.complete and not self.answer.truncated,
            )
            if self.answer.retry_after and self.outcome is not AttemptOutcome.DELIVERED:
                retry_after = outcome.requested_wait(
                    self.answer.retry_after, now=started_at + duration
                )
        return AttemptResult(
            outcome=self.outcome,
            status_code=self.status,
            error=None if error is None else _readable(error)[:ERROR_MAX],
            response_excerpt=excerpt,
            retry_after=retry_after,
            started_at=started_at,
            duration=duration,
            remote_address=self.trace.remote_address,
            reused_connection=self.trace.is_reused,
            timings=Timings(
                dns=_seconds(self.trace.dns),
                connect=_seconds(self.trace.connect),
                tls=_seconds(self.trace.tls),
                first_byte=_seconds(self.trace.first_byte),
            ),
            request_headers=self.headers,
        )


class _Target(NamedTuple):
    url: httpx.URL
    host: str


@lru_cache(maxsize=URLS_MAX)
def _target(url: str) -> _Target:
    """Check a URL and read it, once.

    Raises:
        TargetRefused: the URL is not allowed.
    """
    parsed = httpx.URL(webhook_urls.parse(url))
    return _Target(url=parsed, host=parsed.netloc.decode("ascii"))


def _headers(host: str, headers: Mapping[str, str], *, body: bytes) -> dict[str, str]:
    """Return the headers of a request, names in lower case.

    Raises:
        RequestRefused: a header is one that this function sets.
    """
    own = {name.lower(): value for name, value in headers.items()}
    if not _RESERVED.isdisjoint(own):
        raise errors.RequestRefused("an endpoint's header is one of the transport's")
    return {
        "host": host,
        "user-agent": _USER_AGENT,
        "accept": "*/*",
        # A response that is compressed nevertheless is not decompressed: it could be a bomb.
        "accept-encoding": "identity",
        "content-type": CONTENT_TYPE,
        "content-length": str(len(body)),
        **own,
    }


def _explain(  # noqa: PLR0911  # a table: one line per kind of error
    error: Exception, *, phase: str
) -> tuple[AttemptOutcome, str]:
    match error:
        case webhook_urls.TargetRefused():
            return AttemptOutcome.TARGET_REFUSED, str(error)
        case errors.NameUnresolved():
            return AttemptOutcome.NAME_UNRESOLVED, str(error)
        case errors.ReceiverUnreachable():
            return AttemptOutcome.UNREACHABLE, str(error)
        case errors.TlsFailed():
            return AttemptOutcome.TLS_FAILED, str(error)
        case errors.ConnectionBroken():
            return AttemptOutcome.PROTOCOL_ERROR, f"the connection broke while {phase}"
        case errors.AnswerRefused():
            return AttemptOutcome.PROTOCOL_ERROR, str(error)
        case _:
            log.error("attempt.unexpected_error", phase=phase, exc_info=error)
            return AttemptOutcome.PROTOCOL_ERROR, f"{type(error).__name__} while {phase}"


def _excerpt(body: bytes, *, is_whole: bool) -> str:
    # A character cut at the end is left out; other bytes that are not UTF-8 are replaced.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return _readable(decoder.decode(body, final=is_whole)) if body else ""


def _readable(text: str) -> str:
    return text.translate(_UNREADABLE)


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _user_agent() -> str:
    try:
        return f"Waybill/{version('waybill')}"
    except PackageNotFoundError:
        # A checkout that is not installed has no version.
        return "Waybill"


_USER_AGENT: Final = _user_agent()
