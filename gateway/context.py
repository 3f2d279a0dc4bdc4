"""The settings and resources that all requests of the process share; built in `gateway.app`."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from litestar import Request
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from gateway.backlog import Backlog
from gateway.chunk_holders import ChunkHolders
from gateway.db import AutocommitConnection, Database, TenantTurns
from gateway.feed_tail import FeedTails
from gateway.feed_watch import FeedWatch
from gateway.http import declarations, digests, json_body, pace
from gateway.http.bodies import Bodies
from gateway.http.key_uses import KeyUses
from gateway.http.problems import ClientDisconnected
from gateway.http.rate_limit import TenantRates
from gateway.http.security import ApiKeyCache, Caller
from gateway.http.wait_limit import KeyWaits
from gateway.job_watch import JobWatch
from gateway.links import Links
from gateway.readiness import ReadinessProbe
from gateway.search_statistics import SearchStatistics
from gateway.settings import Settings
from gateway.staging import Staging
from schemas.key_ring import KeyRing


@dataclass(frozen=True, kw_only=True)
class Context:
    """The settings and the open resources of the process."""

    settings: Settings
    database: Database
    autocommit: AutocommitConnection
    staging: Staging
    readiness: ReadinessProbe
    chunk_holders: ChunkHolders
    job_watch: JobWatch
    feed_watch: FeedWatch
    feed_tails: FeedTails
    key_waits: KeyWaits
    backlog: Backlog
    api_keys: ApiKeyCache
    key_uses: KeyUses
    secret_keys: KeyRing
    rates: TenantRates
    bodies: Bodies
    batch_turns: TenantTurns
    search_turns: TenantTurns
    search_statistics: SearchStatistics
    links: Links

    def drain(self) -> None:
        """End every request that waits: the process is about to stop."""
        self.job_watch.drain()
        self.feed_watch.drain()
        self.feed_tails.drain()


class ApiRequest(Request[Caller, None, Any]):
    """A request with the context of the process.

    Every body has a silence limit and a minimum rate. A broken body is the client's error, also a
    body that ends early, for which Litestar alone would answer 500.
    """

    _collected: bytes | None = None

    @property
    def context(self) -> Context:
        context: Context = self.app.state.context
        return context

    @property
    def _bytes_max(self) -> int | None:
        """The limit of the route; None if it streams its bodies."""
        return self.route_handler.resolve_request_max_body_size()

    def stream(self) -> AsyncGenerator[bytes, None]:
        return self._stream(self._bytes_max)

    def _stream(self, bytes_max: int | None) -> AsyncGenerator[bytes, None]:
        limits = pace.PaceLimits.from_settings(self.context.settings)
        return pace.limited(self._pieces(bytes_max), limits=limits)

    async def _pieces(self, bytes_max: int | None) -> AsyncGenerator[bytes, None]:
        """Yield the pieces of the body, and keep none while the next piece is awaited.

        The framework's own stream keeps one, up to 250 KiB for each body that stalls.

        Raises:
            ClientDisconnected: the connection ended within the body.
            RequestEntityTooLarge: the body has more than `bytes_max` bytes.
        """
        announced, received, has_more = self.content_length or 0, 0, True
        while has_more:
            _check_size(max(announced, received), bytes_max)
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientDisconnected
            has_more = message.get("more_body", False)
            pieces = [message["body"]]
            del message
            received += len(pieces[0])
            yield pieces.pop()
        _check_size(received, bytes_max)

    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            RequestEntityTooLarge: the body has more bytes than the route allows for JSON.
            TooManyBodies, BodiesBusy: too many bodies arrive at once.
        """
        if self._collected is None:
            # A route that streams its forms limits only its JSON.
            bytes_max = self._bytes_max or self.context.settings.request_body_max
            with self.context.bodies.arriving(self.user.tenant_id) as body:
                pieces = []
                async for piece in self._stream(bytes_max):
                    body.keep(len(piece))
                    pieces.append(piece)
                self._collected = b"".join(pieces)
        return self._collected

    async def json(self) -> Any:  # noqa: ANN401  # the framework's own signature
        decoded = self.decoded(await self.body())
        # A request may wait for its job for a long time, and needs its body no more.
        self._collected = b""
        return decoded

    def decoded(self, body: bytes) -> Any:  # noqa: ANN401  # JSON of any kind
        """Check the body of this request and decode it.

        Raises:
            InvalidRequest: the body is encoded, incomplete, or not JSON.
            DigestInvalid, DigestUnsupported, BodyDigestMismatch: the head declares other bytes.
        """
        declarations.check_plain(self.headers)
        digests.check(body, expected=declarations.digests_of(self.headers))
        return json_body.decode(body)


def _check_size(received: int, bytes_max: int | None) -> None:
    if bytes_max is not None and received > bytes_max:
        raise RequestEntityTooLarge(f"a JSON body has at most {bytes_max} bytes")
