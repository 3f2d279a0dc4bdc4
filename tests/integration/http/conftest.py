import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import httpcore
import httpx
import pytest

from notifier.delivery import attempt, signing, transport
from notifier.delivery.attempt import AttemptResult
from schemas.settings import DeliverySettings
from tests.fakes.receiver import Receiver
from tests.integration.http.certificates import Authority

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  # a published test vector
BODY: Final = '{"specversion":"1.0","type":"document.ingested","data":{"title":"Größe"}}'.encode()
EXCERPT: Final = 16 * 1024


@dataclass
class FixedResolver:
    """A resolver with fixed answers: one per look-up, and then always the last answer."""

    answers: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[str]:  # noqa: ARG002  # the resolver's signature
        self.asked.append(host)
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
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
            headers=signing.sign(
                signing.parse(SECRET), message_id="evt-1", timestamp=now, body=body
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
    resolve: FixedResolver | None = None,
    network: httpcore.AsyncNetworkBackend | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Sender]:
    async with transport.open_client(
        DeliverySettings(),
        allow_loopback=allow_loopback,
        resolve=resolve,
        network=network,
        ssl_context=ssl_context,
    ) as client:
        yield Sender(client)


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
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port
