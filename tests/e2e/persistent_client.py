"""Clients that retry with any gateway until an answer is final, and record acknowledged chunks."""

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

RETRY_CODES = {"body_too_slow", "chunk_in_progress", "unavailable"}
"""Error codes of answers after which the same request may succeed soon."""


class RetryLater(Exception):
    """The gateway answered that the same request may succeed soon."""


@dataclass(frozen=True, kw_only=True)
class FinalizedUpload:
    """A finalized upload and the sha256 that its object must have."""

    upload_id: str
    job_id: str
    sha256: str


@dataclass(frozen=True)
class AckedChunks:
    """The sha256 of every acknowledged chunk of the open uploads."""

    _acked: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, upload_id: str, *, index: int, sha256: str) -> None:
        self._acked[upload_id][index] = sha256

    def close(self, upload_id: str) -> None:
        """Forget an upload that is about to be finalized."""
        del self._acked[upload_id]

    def is_open(self, upload_id: str) -> bool:
        return upload_id in self._acked

    def copy(self) -> dict[str, dict[int, str]]:
        return {upload_id: dict(acked) for upload_id, acked in self._acked.items()}


@dataclass(kw_only=True)
class PersistentClient:
    """Sends each request to one of the running gateways, chosen at random.

    Attributes:
        broken_requests: requests whose gateway died before the answer.
        cut_requests: requests whose connection the client itself closed.
    """

    http: httpx.AsyncClient
    key: str
    urls: Callable[[], Sequence[str]]
    random: Random
    broken_requests: int = 0
    cut_requests: int = 0

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def any_url(self) -> str:
        return self.random.choice(self.urls())

    async def request(
        self,
        method: str,
        path: str,
        **options: Any,  # noqa: ANN401  # whatever httpx takes
    ) -> httpx.Response:
        """Send a request to one gateway after the other until an answer is final."""
        headers = self.authorization | options.pop("headers", {})
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((httpx.TransportError, RetryLater)),
            stop=stop_after_delay(90),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            reraise=True,
        ):
            with attempt:
                return await self._request_once(method, path, headers=headers, **options)
        raise AssertionError  # the last attempt raises

    async def _request_once(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401  # whatever httpx takes
        try:
            answer = await self.http.request(method, f"{self.any_url()}/api/v1{path}", **options)
        except httpx.ConnectError:
            raise
        except httpx.TransportError:
            self.broken_requests += 1
            raise
        if answer.is_error and answer.json()["code"] in RETRY_CODES:
            raise RetryLater
        return answer

    async def create(self, *, size: int, **options: Any) -> str:  # noqa: ANN401  # whatever the API takes
        answer = await self.request(
            "POST",
            "/uploads",
            json={"filename": "a.bin", "size": size, "chunk_size": KIB64, **options},
            headers={"Idempotency-Key": uuid4().hex},
        )
        assert answer.status_code == 201, answer.text
        upload_id: str = answer.json()["upload_id"]
        return upload_id

    async def put(self, upload_id: str, *, index: int, piece: bytes) -> httpx.Response:
        return await self.request(
            "PUT",
            f"/uploads/{upload_id}/chunks/{index}",
            content=piece,
            headers=content_digest(piece),
        )

    async def stored_chunks(self, upload_id: str) -> dict[int, str]:
        """Return the sha256 of every chunk in the manifest."""
        answer = await self.request("GET", f"/uploads/{upload_id}")
        assert answer.status_code == 200, answer.text
        return {chunk["index"]: chunk["sha256"] for chunk in answer.json()["chunks"]}

    async def upload(
        self, content: bytes, *, acked: AckedChunks, parallel: int = 3, cut_share: float = 0
    ) -> FinalizedUpload:
        """Send a file's chunks in random order, a third of them twice, and finalize.

        Before a chunk is sent, with the probability `cut_share`, a connection breaks in its middle.
        """
        upload_id = await self.create(size=len(content))
        pieces = pieces_of(content)
        order = [*range(len(pieces)), *self.random.sample(range(len(pieces)), len(pieces) // 3)]
        self.random.shuffle(order)
        remaining = iter(order)

        async def send_chunks() -> None:
            for index in remaining:
                if self.random.random() < cut_share:
                    await self.cut_connection(upload_id, index=index, piece=pieces[index])
                answer = await self.put(upload_id, index=index, piece=pieces[index])
                assert answer.status_code == 200, answer.text
                sha256 = hashlib.sha256(pieces[index]).hexdigest()
                assert answer.json()["sha256"] == sha256
                acked.add(upload_id, index=index, sha256=sha256)

        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(send_chunks())
        acked.close(upload_id)
        job_id = await self.finalize(upload_id, pieces=pieces)
        return FinalizedUpload(
            upload_id=upload_id, job_id=job_id, sha256=hashlib.sha256(content).hexdigest()
        )

    async def finalize(self, upload_id: str, *, pieces: Sequence[bytes]) -> str:
        chunks = [
            {"index": index, "size": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}
            for index, piece in enumerate(pieces)
        ]
        answer = await self.request(
            "POST", "/upload", json={"upload_id": upload_id, "chunks": chunks}
        )
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    async def begin_chunk(
        self, upload_id: str, *, index: int, length: int, body: bytes
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send the head and the first bytes of a chunk of `length` bytes on a new connection."""
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

    async def cut_connection(self, upload_id: str, *, index: int, piece: bytes) -> None:
        """Send a random part of a chunk and abort the connection."""
        sent = self.random.randrange(len(piece))
        _, writer = await self.begin_chunk(
            upload_id, index=index, length=len(piece), body=piece[:sent]
        )
        await asyncio.sleep(self.random.uniform(0, 0.05))
        writer.transport.abort()
        self.cut_requests += 1


@asynccontextmanager
async def connected(
    key: str, *, urls: Callable[[], Sequence[str]], random: Random
) -> AsyncIterator[PersistentClient]:
    """Yield a client without a proxy and without a limit of connections."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(timeout=60, trust_env=False, limits=limits) as http:
        yield PersistentClient(http=http, key=key, urls=urls, random=random)
