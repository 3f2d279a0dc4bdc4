import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx
import pytest

from notifier.delivery import attempt, transport
from notifier.delivery.attempt import AttemptResult
from notifier.http.dns import Resolver
from notifier.http.errors import NameUnresolved
from notifier.http.network import ConnectTcp, connect_tcp
from schemas.policy import webhook_signing
from schemas.settings import DeliverySettings
from tests import trust
from tests.fakes import replies
from tests.fakes.receiver import Receiver
from tests.integration.http.certificates import Authority
from tests.webhook_urls import LOOPBACK_NETWORKS

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  # a published test vector
BODY: Final = '{"specversion":"1.0","type":"document.ingested","data":{"title":"Größe"}}'.encode()
EXCERPT: Final = 16 * 1024


@dataclass
class FixedResolver:
    """A resolver with fixed answers: one per look-up, and then always the last answer."""

    answers: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, *, share: str | None) -> Sequence[str]:  # noqa: ARG002  # the resolver's signature
        self.asked.append(host)
        if host not in self.answers:
            raise NameUnresolved("Domain name not found")
        answers = self.answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@dataclass
class Sender:
    """Posts as the notifier does, by default to receivers on loopback."""

    client: httpx.AsyncClient

    async def post(
        self,
        url: str,
        *,
        body: bytes = BODY,
        timeout: timedelta = timedelta(seconds=10),  # noqa: ASYNC109  # passed to the function under test
    ) -> AttemptResult:
        now = datetime.now(UTC)
        return await attempt.post(
            self.client,
            url=url,
            headers=webhook_signing.sign(
                webhook_signing.parse(SECRET), message_id="evt-1", timestamp=now, body=body
            ),
            body=body,
            started_at=now,
            timeout=timeout,
            response_max=EXCERPT,
        )


@asynccontextmanager
async def a_sender(
    *,
    allow_loopback: bool = True,
    resolve: Resolver | None = None,
    connect: ConnectTcp = connect_tcp,
    ssl_context: ssl.SSLContext = trust.PUBLIC,
    settings: DeliverySettings | None = None,
) -> AsyncIterator[Sender]:
    async with transport.open_client(
        settings or DeliverySettings(),
        allowed_networks=LOOPBACK_NETWORKS if allow_loopback else (),
        resolve=resolve,
        connect=connect,
        ssl_context=ssl_context,
    ) as client:
        yield Sender(client)


@asynccontextmanager
async def serving(handler: replies.Reply) -> AsyncIterator[int]:
    """Yield the port of a server whose handler does all, also reading the request."""
    conversations: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        # The conversation also ends when the sender disconnects or the test ends.
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port
