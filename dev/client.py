"""A small client of the HTTP API, for the demo, the benchmarks and the end-to-end tests.

It uses only the documented API: create an upload, send chunks in parallel, each with its
digest, finalize, wait for the job.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

import httpx

WAIT_MAX_SECONDS: Final = 30
RETRIES: Final = 3


class JobStillRunning(TimeoutError):
    def __init__(self, status: dict[str, Any], *, waited: timedelta) -> None:
        super().__init__(f"job still {status['status']} after {waited}: {status}")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    index: int
    content: bytes

    @property
    def digest_header(self) -> str:
        """`Content-Digest` of RFC 9530."""
        digest = base64.b64encode(hashlib.sha256(self.content).digest()).decode()
        return f"sha-256=:{digest}:"


def chunks_of(path: Path, *, chunk_size: int) -> Iterator[Chunk]:
    with path.open("rb") as file:
        index = 0
        while content := file.read(chunk_size):
            yield Chunk(index=index, content=content)
            index += 1


class Client:
    """One gateway, one API key."""

    def __init__(
        self, url: str, *, api_key: str, timeout: timedelta = timedelta(seconds=60)
    ) -> None:
        self.http = httpx.Client(
            base_url=f"{url}/api/v1",
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=timeout.total_seconds(),
            # Requests between local processes must not go through the machine's proxy.
            trust_env=False,
            transport=httpx.HTTPTransport(retries=RETRIES),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.http.close()

    def create_upload(self, *, filename: str, size: int, **options: Any) -> dict[str, Any]:  # noqa: ANN401  # any field of the API
        return self._json("POST", "/uploads", json={"filename": filename, "size": size, **options})

    def put_chunk(self, upload_id: str, chunk: Chunk) -> httpx.Response:
        return self.http.put(
            f"/uploads/{upload_id}/chunks/{chunk.index}",
            content=chunk.content,
            headers={
                "Content-Digest": chunk.digest_header,
                "Content-Type": "application/octet-stream",
            },
        )

    def send(
        self,
        upload_id: str,
        chunks: Iterable[Chunk],
        *,
        parallel: int = 4,
        on_sent: Callable[[Chunk], None] = lambda _: None,
    ) -> None:
        """Send chunks; memory holds at most `parallel` of them."""

        def put(chunk: Chunk) -> None:
            self.put_chunk(upload_id, chunk).raise_for_status()
            on_sent(chunk)

        with ThreadPoolExecutor(parallel) as pool:
            waiting = []
            for chunk in chunks:
                waiting.append(pool.submit(put, chunk))
                if len(waiting) >= parallel:
                    waiting.pop(0).result()
            for sent in waiting:
                sent.result()

    def finalize(self, upload_id: str, **options: Any) -> httpx.Response:  # noqa: ANN401  # any field of the API
        answer = self.http.post("/upload", json={"upload_id": upload_id, **options})
        answer.raise_for_status()
        return answer

    def cancel(self, upload_id: str, *, purge: bool = False) -> dict[str, Any]:
        """Cancel an upload; `purge` also deletes its object and document."""
        return self._json("DELETE", f"/uploads/{upload_id}", params={"purge": purge})

    def job(self, job_id: str, *, wait_seconds: int = 0) -> dict[str, Any]:
        return self._json("GET", f"/jobs/{job_id}", params={"wait": wait_seconds})

    def wait_until_settled(self, job_id: str, *, timeout: timedelta) -> dict[str, Any]:
        """Long-poll until the job is completed, failed or cancelled.

        Raises:
            JobStillRunning: the job did not end within `timeout`.
        """
        deadline = monotonic() + timeout.total_seconds()
        while True:
            left = deadline - monotonic()
            status = self.job(job_id, wait_seconds=max(0, min(WAIT_MAX_SECONDS, int(left))))
            if status["status"] in {"completed", "failed", "cancelled"}:
                return status
            if left <= 0:
                raise JobStillRunning(status, waited=timeout)

    def upload(self, path: Path, *, filename: str | None = None, **options: Any) -> dict[str, Any]:  # noqa: ANN401  # any field of the API
        """Create, send and finalize an upload; return the answer of finalize."""
        created = self.create_upload(
            filename=filename or path.name, size=path.stat().st_size, **options
        )
        self.send(created["upload_id"], chunks_of(path, chunk_size=max(1, created["chunk_size"])))
        job: dict[str, Any] = self.finalize(created["upload_id"]).json()
        return job

    def get(self, path: str, **params: Any) -> httpx.Response:  # noqa: ANN401  # any field of the API
        answer = self.http.get(path, params=params)
        answer.raise_for_status()
        return answer

    def create_webhook(self, url: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401  # any field of the API
        return self._json("POST", "/webhooks", json={"url": url, **options})

    def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401  # httpx's own arguments
        answer = self.http.request(method, path, **request)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body
