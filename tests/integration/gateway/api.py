"""A client of the HTTP API, for a gateway in this process or another."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncSession

BeginSession: TypeAlias = "Callable[[], AbstractAsyncContextManager[AsyncSession]]"

MIB = 1024 * 1024
KIB64 = 64 * 1024


def digest_field(content: bytes, algorithm: str = "sha-256") -> str:
    """Return the value of a digest field of RFC 9530."""
    digest = hashlib.new(algorithm.replace("-", ""), content).digest()
    return f"{algorithm}=:{base64.b64encode(digest).decode()}:"


def content_digest(content: bytes, algorithm: str = "sha-256") -> dict[str, str]:
    return {"Content-Digest": digest_field(content, algorithm)}


def pieces_of(content: bytes, *, chunk_size: int = KIB64) -> list[bytes]:
    return [content[start : start + chunk_size] for start in range(0, len(content), chunk_size)]


class PausedBody:
    """A body that pauses after its first bytes until `may_continue` is set."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.has_started = asyncio.Event()
        self.may_continue = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content[:100]
        self.has_started.set()
        await self.may_continue.wait()
        yield self._content[100:]


@dataclass(frozen=True)
class Api:
    """One caller of the gateway."""

    http: httpx.AsyncClient
    key: str

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def of(self, key: str) -> "Api":
        """Return the client of another caller."""
        return Api(self.http, key)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        **request: Any,  # noqa: ANN401  # any argument of httpx
    ) -> httpx.Response:
        return await self.http.request(
            method, f"/api/v1{path}", headers={**self.authorization, **(headers or {})}, **request
        )

    async def get(self, path: str, **params: Any) -> httpx.Response:  # noqa: ANN401  # any query
        return await self.ask("GET", path, params=params)

    async def create(
        self,
        *,
        size: int,
        headers: Mapping[str, str] | None = None,
        chunk_size: int = KIB64,
        **options: Any,  # noqa: ANN401  # any field of the API
    ) -> httpx.Response:
        body = {"filename": "a.bin", "size": size, "chunk_size": chunk_size, **options}
        return await self.ask("POST", "/uploads", json=body, headers=headers)

    async def created(self, *, size: int, **options: Any) -> str:  # noqa: ANN401  # any field of the API
        answer = await self.create(size=size, **options)
        assert answer.status_code == 201, answer.text
        upload_id: str = answer.json()["upload_id"]
        return upload_id

    async def put(
        self,
        upload_id: str,
        index: int,
        content: bytes | AsyncIterable[bytes],
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        return await self.ask(
            "PUT", f"/uploads/{upload_id}/chunks/{index}", content=content, headers=headers
        )

    async def probed(self, status: str) -> dict[str, Any]:
        """Return the first readiness of this status; what was found a second ago may be answered."""
        async with asyncio.timeout(20):
            while True:
                answer = await self.http.get("/health/ready")
                body: dict[str, Any] = answer.json()
                if body["status"] == status:
                    assert answer.status_code == (503 if status == "not_ready" else 200)
                    return body
                await asyncio.sleep(0.05)

    async def stored(self, upload_id: str) -> list[int]:
        """Return the indexes of the chunks in the manifest."""
        answer = await self.get(f"/uploads/{upload_id}")
        assert answer.status_code == 200, answer.text
        return [chunk["index"] for chunk in answer.json()["chunks"]]

    async def finalize(
        self,
        upload_id: str,
        *,
        headers: Mapping[str, str] | None = None,
        chunks: Sequence[Mapping[str, Any]] | None = None,
        sha256: str | None = None,
        **options: Any,  # noqa: ANN401  # any other field of the API
    ) -> httpx.Response:
        body = {"upload_id": upload_id, "chunks": chunks, "sha256": sha256, **options}
        return await self.ask("POST", "/upload", json=body, headers=headers)

    async def sent(self, content: bytes, **options: Any) -> str:  # noqa: ANN401  # any field of the API
        """Create an upload and send all its chunks; return its id."""
        upload_id = await self.created(size=len(content), **options)
        for index, piece in enumerate(pieces_of(content)):
            answer = await self.put(upload_id, index, piece)
            assert answer.status_code == 200, answer.text
        return upload_id

    async def finalized(self, content: bytes = b"content", **options: Any) -> tuple[str, str]:  # noqa: ANN401  # any field of the API
        """Upload and finalize; return the ids of the upload and its job."""
        upload_id = await self.sent(content, **options)
        answer = await self.finalize(upload_id)
        assert answer.status_code == 202, answer.text
        return upload_id, answer.json()["job_id"]


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    return answer.status_code, body["code"]
