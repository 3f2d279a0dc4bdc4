"""Clients that ask any gateway, do not give up, and remember what they were promised."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from tests.integration.gateway.api import KIB64, content_digest, pieces_of

MEANS_LATER = {"chunk_in_progress", "unavailable"}
"""Codes of answers that carry `Retry-After`."""


class TryAgain(Exception):
    """The gateway said that it will not be so for long."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """An upload that was finalized, and what its object has to be."""

    upload_id: str
    job_id: str
    sha256: str


@dataclass(frozen=True)
class Ledger:
    """The chunks of open uploads that were acked, with the sha256 each was acked with."""

    _acked: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))

    def ack(self, upload_id: str, *, index: int, sha256: str) -> None:
        self._acked[upload_id][index] = sha256

    def close(self, upload_id: str) -> None:
        """Take the upload out: it is about to be finalized."""
        del self._acked[upload_id]

    def is_open(self, upload_id: str) -> bool:
        return upload_id in self._acked

    def copy(self) -> dict[str, dict[int, str]]:
        return {upload_id: dict(acked) for upload_id, acked in self._acked.items()}


@dataclass(kw_only=True)
class Caller:
    """One way to all the gateways there are at the moment."""

    http: httpx.AsyncClient
    key: str
    urls: Callable[[], Sequence[str]]
    random: Random
    broken: int = 0
    """Requests whose gateway went away."""
    cut: int = 0
    """Requests that were lost on purpose."""

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def any_url(self) -> str:
        return self.random.choice(self.urls())

    async def ask(
        self,
        method: str,
        path: str,
        **request: Any,  # noqa: ANN401  # whatever httpx takes
    ) -> httpx.Response:
        """Ask one gateway after the other until one answers for good."""
        headers = self.authorization | request.pop("headers", {})
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((httpx.TransportError, TryAgain)),
            stop=stop_after_delay(90),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        ):
            with attempt:
                return await self._ask_once(method, path, headers=headers, **request)
        raise AssertionError  # the last attempt raises

    async def _ask_once(self, method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401  # whatever httpx takes
        try:
            answer = await self.http.request(method, f"{self.any_url()}/api/v1{path}", **request)
        except httpx.ConnectError:
            raise
        except httpx.TransportError:
            self.broken += 1
            raise
        if answer.is_error and answer.json()["code"] in MEANS_LATER:
            raise TryAgain
        return answer

    async def create(self, *, size: int, **options: Any) -> str:  # noqa: ANN401  # whatever the API takes
        answer = await self.ask(
            "POST",
            "/uploads",
            json={"filename": "a.bin", "size": size, "chunk_size": KIB64, **options},
            headers={"Idempotency-Key": uuid4().hex},
        )
        assert answer.status_code == 201, answer.text
        upload_id: str = answer.json()["upload_id"]
        return upload_id

    async def put(self, upload_id: str, *, index: int, piece: bytes) -> httpx.Response:
        return await self.ask(
            "PUT",
            f"/uploads/{upload_id}/chunks/{index}",
            content=piece,
            headers=content_digest(piece),
        )

    async def stored(self, upload_id: str) -> dict[int, str]:
        """Return the sha256 of every chunk a gateway says is there."""
        answer = await self.ask("GET", f"/uploads/{upload_id}")
        assert answer.status_code == 200, answer.text
        return {chunk["index"]: chunk["sha256"] for chunk in answer.json()["chunks"]}

    async def send(
        self, content: bytes, *, ledger: Ledger, parallel: int = 3, cut: float = 0
    ) -> Sent:
        """Upload a file: its chunks in random order, some of them twice; then finalize.

        A part `cut` of the chunks is begun on a connection that is lost first.
        """
        upload_id = await self.create(size=len(content))
        pieces = pieces_of(content)
        order = [*range(len(pieces)), *self.random.sample(range(len(pieces)), len(pieces) // 3)]
        self.random.shuffle(order)
        left = iter(order)

        async def lane() -> None:
            for index in left:
                if self.random.random() < cut:
                    await self.cut_off(upload_id, index=index, piece=pieces[index])
                answer = await self.put(upload_id, index=index, piece=pieces[index])
                assert answer.status_code == 200, answer.text
                sha256 = hashlib.sha256(pieces[index]).hexdigest()
                assert answer.json()["sha256"] == sha256
                ledger.ack(upload_id, index=index, sha256=sha256)

        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(lane())
        ledger.close(upload_id)
        job_id = await self.finalize(upload_id, pieces=pieces)
        return Sent(upload_id=upload_id, job_id=job_id, sha256=hashlib.sha256(content).hexdigest())

    async def finalize(self, upload_id: str, *, pieces: Sequence[bytes]) -> str:
        chunks = [
            {"index": index, "size": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}
            for index, piece in enumerate(pieces)
        ]
        answer = await self.ask("POST", "/upload", json={"upload_id": upload_id, "chunks": chunks})
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    async def begin(
        self, upload_id: str, *, index: int, length: int, body: bytes
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Begin to send a chunk of `length` bytes on a connection of its own."""
        url = urlsplit(self.any_url())
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        head = (
            f"PUT /api/v1/uploads/{upload_id}/chunks/{index} HTTP/1.1\r\n"
            f"Host: {url.netloc}\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Length: {length}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        return reader, writer

    async def cut_off(self, upload_id: str, *, index: int, piece: bytes) -> None:
        """Lose the connection somewhere in the middle of a chunk."""
        sent = self.random.randrange(len(piece))
        _, writer = await self.begin(upload_id, index=index, length=len(piece), body=piece[:sent])
        await asyncio.sleep(self.random.uniform(0, 0.05))
        writer.transport.abort()
        self.cut += 1


@asynccontextmanager
async def caller(
    key: str, *, urls: Callable[[], Sequence[str]], random: Random
) -> AsyncIterator[Caller]:
    """Yield a client that lets nothing stand between it and the gateways."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(timeout=60, trust_env=False, limits=limits) as http:
        yield Caller(http=http, key=key, urls=urls, random=random)
