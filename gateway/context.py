"""The settings and resources that all requests of the process share; built in `gateway.app`."""

import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from litestar import Request
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from gateway.backlog import Backlog
from gateway.chunk_holders import ChunkHolders
from gateway.db import AutocommitConnection, Database
from gateway.http import declarations, digests, json_body, pace
from gateway.http.bodies import Bodies
from gateway.http.key_uses import KeyUses
from gateway.http.problems import ClientDisconnected
from gateway.http.rate_limit import TenantRates
from gateway.http.security import ApiKeyCache, Caller
from gateway.http.wait_limit import KeyWaits
from gateway.job_watch import JobWatch
from gateway.readiness import ReadinessProbe
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
    key_waits: KeyWaits
    backlog: Backlog
    api_keys: ApiKeyCache
    key_uses: KeyUses
    secret_keys: KeyRing
    rates: TenantRates
    bodies: Bodies


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

    def stream(self) -> AsyncGenerator[bytes, None]:
        limits = pace.PaceLimits.from_settings(self.context.settings)
        return pace.limited(self._pieces(), limits=limits)

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces of the body, and keep none while the next piece is awaited.

        The framework's own stream keeps one, up to 250 KiB for each body that stalls.

        Raises:
            ClientDisconnected: the connection ended within the body.
            RequestEntityTooLarge: the body is larger than the route allows.
        """
        size_max = self.route_handler.resolve_request_max_body_size() or math.inf
        announced, received, has_more = self.content_length or 0, 0, True
        while has_more:
            if max(announced, received) > size_max:
                raise RequestEntityTooLarge
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientDisconnected
            has_more = message.get("more_body", False)
            pieces = [message["body"]]
            del message
            received += len(pieces[0])
            yield pieces.pop()
        if received > size_max:
            raise RequestEntityTooLarge

    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            TooManyBodies, BodiesBusy: too many bodies arrive at once.
        """
        if self._collected is None:
            with self.context.bodies.arriving(self.user.tenant_id) as body:
                pieces = []
                async for piece in self.stream():
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
