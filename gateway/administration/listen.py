"""Forwards the events of a tenant to a server on this machine, signed as webhooks are.

For integrators before they have a public URL: reads the feed of events over HTTP with an API key,
and needs neither the database nor a registered endpoint.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final

import httpx
import msgspec

from schemas.events.envelope import CONTENT_TYPE
from schemas.policy import webhook_signing

EVENTS: Final = "/api/v1/events"
LATEST: Final = "latest"
"""Instead of a cursor: the end of the feed."""

WAIT: Final = timedelta(seconds=25)
"""How long a request for the next events waits; shorter than most proxies allow."""

PAGE: Final = 100
ANSWER_TIMEOUT: Final = timedelta(seconds=20)
"""Of the server on this machine."""

PAUSES: Final = tuple(timedelta(seconds=seconds) for seconds in (1, 2, 5, 10))
"""Between requests while the gateway does not answer."""


class ListenFailed(Exception):
    """The gateway refuses to read the feed, or no gateway answers; another request would fail too."""


class FeedPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of `GET /events`; the bytes of each event are kept."""

    items: list[msgspec.Raw]
    next_cursor: str
    has_more: bool


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: str


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Forwarded:
    """An event, and what the server on this machine answered.

    Attributes:
        status: None if there was no answer; `error` says why.
    """

    at: datetime
    event_id: str
    type: str
    status: int | None
    duration: timedelta
    error: str = ""

    def __str__(self) -> str:
        answer = self.error if self.status is None else str(self.status)
        milliseconds = self.duration / timedelta(milliseconds=1)
        clock = self.at.astimezone().strftime("%H:%M:%S")
        return f"{clock}  {self.type:<20}  {self.event_id}  {answer}  {milliseconds:.0f} ms"


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Reads the events of a tenant.

    Attributes:
        client: with the gateway's URL and the API key.
        types: only events of these types, or ``document.*``; all events if empty.
        report: called with a line when the gateway does not answer.
        pauses: between requests while the gateway does not answer.
    """

    client: httpx.AsyncClient
    types: Sequence[str]
    report: Callable[[str], None]
    pauses: Sequence[timedelta] = PAUSES

    async def end(self) -> str:
        """Return the cursor after the newest event.

        Raises:
            ListenFailed: see `ListenFailed`.
        """
        return (await self._page(after=LATEST, wait=timedelta())).next_cursor

    async def events_after(self, cursor: str | None) -> AsyncIterator[bytes]:
        """Yield the bytes of each event after the cursor, without end; None starts with the oldest.

        Raises:
            ListenFailed: see `ListenFailed`.
        """
        while True:
            page = await self._page(after=cursor, wait=WAIT)
            for event in page.items:
                yield bytes(event)
            cursor = page.next_cursor

    async def _page(self, *, after: str | None, wait: timedelta) -> FeedPage:
        parameters: dict[str, str | int | list[str]] = {
            "limit": PAGE,
            "wait": int(wait.total_seconds()),
            "types": list(self.types),
            **({} if after is None else {"after": after}),
        }
        failures = 0
        while True:
            try:
                answer = await self.client.get(
                    EVENTS, params=parameters, timeout=wait.total_seconds() + 10
                )
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
            else:
                if answer.is_success:
                    return _page_of(answer)
                reason = _reason(answer)
                if not (answer.is_server_error or answer.status_code in _REPEATABLE):
                    raise ListenFailed(reason)
            pause = self.pauses[min(failures, len(self.pauses) - 1)]
            failures += 1
            self.report(f"no events from the gateway ({reason}); next try in {pause.seconds} s")
            await asyncio.sleep(pause.total_seconds())


_REPEATABLE: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT})


def _page_of(answer: httpx.Response) -> FeedPage:
    """Return the page that an answer holds.

    Raises:
        ListenFailed: it holds none, as the answer of another server.
    """
    try:
        return msgspec.json.decode(answer.content, type=FeedPage)
    except msgspec.DecodeError as error:
        raise ListenFailed(f"the answer of {answer.url.host} is not a page of the feed") from error


def _reason(answer: httpx.Response) -> str:
    """Return the status, and the detail of a problem (RFC 9457) if the answer is one."""
    try:
        detail = msgspec.json.decode(answer.content, type=_Problem).detail
    except msgspec.DecodeError:
        detail = ""
    return f"{answer.status_code}: {detail}" if detail else str(answer.status_code)


async def forward(
    event: bytes, *, to: str, client: httpx.AsyncClient, secret: webhook_signing.Signer
) -> Forwarded:
    """POST an event, signed with the secret; an answer that is no 2xx is not repeated."""
    decoded = msgspec.json.decode(event, type=_Event)
    at, began = datetime.now(UTC), time.perf_counter()
    headers = webhook_signing.sign(secret, message_id=decoded.id, timestamp=at, body=event)
    status, error = None, ""
    try:
        answer = await client.post(
            to,
            content=event,
            headers={**headers, "content-type": CONTENT_TYPE},
            timeout=ANSWER_TIMEOUT.total_seconds(),
        )
        status = answer.status_code
    except httpx.RequestError as failure:
        error = str(failure) or type(failure).__name__
    return Forwarded(
        at=at,
        event_id=decoded.id,
        type=decoded.type,
        status=status,
        duration=timedelta(seconds=time.perf_counter() - began),
        error=error,
    )


async def listen(
    *,
    gateway: str,
    api_key: str,
    to: str,
    secret: str,
    types: Sequence[str],
    from_beginning: bool,
    report: Callable[[str], None],
) -> None:
    """Forward events until cancelled; report a line for each.

    Args:
        gateway: URL of the gateway.
        api_key: a key with the scope ``webhooks:read``.
        to: URL of the server on this machine.
        secret: ``whsec_…`` or ``whsk_…``; signs the requests.
        types: see `Feed`.
        from_beginning: whether to begin with the oldest event that is stored, not with the next one.
        report: prints a line.

    Raises:
        ListenFailed: see `ListenFailed`.
    """
    signer = webhook_signing.parse(secret)
    async with (
        httpx.AsyncClient(
            base_url=gateway, headers={"authorization": f"Bearer {api_key}"}
        ) as feed_client,
        # Only loopback: a proxy of the environment could not reach it.
        httpx.AsyncClient(trust_env=False) as local,
    ):
        feed = Feed(client=feed_client, types=types, report=report)
        cursor = None if from_beginning else await feed.end()
        report("listening; Ctrl-C ends it")
        async for event in feed.events_after(cursor):
            report(str(await forward(event, to=to, client=local, secret=signer)))
