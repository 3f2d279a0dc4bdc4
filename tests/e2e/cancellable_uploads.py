"""Uploads at each of the six stages in which a client can cancel one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.client import chunks_of
from tests.e2e.deployment import Deployment
from tests.e2e.files import MIB, TIMEOUT, random_file
from tests.e2e.store_proxy import StoreProxy
from tests.eventually import eventually
from tests.factories import pdfs


@dataclass(frozen=True, kw_only=True)
class CancellableUpload:
    upload_id: str
    job_id: str | None = None
    is_stored: bool = False


@dataclass(frozen=True, kw_only=True)
class CancellableUploads:
    """Brings an upload to a stage and holds it there.

    Attributes:
        options: sent with every upload that is created.
    """

    deployment: Deployment
    directory: Path
    store: StoreProxy
    options: Mapping[str, Any]

    @contextmanager
    def without_chunks(self) -> Iterator[CancellableUpload]:
        yield CancellableUpload(upload_id=self._sent(self._file(mebibytes=4), share=0))

    @contextmanager
    def half_sent(self) -> Iterator[CancellableUpload]:
        yield CancellableUpload(upload_id=self._sent(self._file(mebibytes=4), share=0.5))

    @contextmanager
    def queued(self) -> Iterator[CancellableUpload]:
        with self.deployment.paused("transfer"):
            yield self._finalized(self._file(mebibytes=4))

    @contextmanager
    def mid_transfer(self) -> Iterator[CancellableUpload]:
        path = self._file(mebibytes=40)
        upload_id = self._sent(path, share=1)
        self.store.limit_speed(8 * MIB)
        job_id = self.deployment.client.finalize(upload_id).json()["job_id"]
        eventually(
            lambda: self.deployment.client.job(job_id)["bytes_done"], until=lambda done: done > 0
        )
        assert self.deployment.traces.multiparts(upload_id) != []
        yield CancellableUpload(upload_id=upload_id, job_id=job_id)

    @contextmanager
    def stored_and_not_read(self) -> Iterator[CancellableUpload]:
        path = self._pdf()
        with self.deployment.paused("ingest"):
            upload = self._finalized(path, is_stored=True)
            eventually(
                lambda: self.deployment.client.job(str(upload.job_id))["stage"],
                until=lambda stage: stage == "ingest",
            )
            yield upload

    @contextmanager
    def completed(self) -> Iterator[CancellableUpload]:
        upload = self._finalized(self._pdf(), is_stored=True)
        job = self.deployment.client.wait_until_settled(str(upload.job_id), timeout=TIMEOUT)
        assert job["status"] == "completed"
        yield upload

    def _file(self, *, mebibytes: int) -> Path:
        path = self.directory / "file.bin"
        random_file(path, mebibytes=mebibytes, seed=14)
        return path

    def _pdf(self) -> Path:
        path = self.directory / "file.pdf"
        path.write_bytes(pdfs.with_pages("one", "two", "three"))
        return path

    def _sent(self, path: Path, *, share: float) -> str:
        """Send a share of the chunks of a file and return the upload's id."""
        # Chunks below the minimum part size: with either staging, the bytes pass the worker.
        created = self.deployment.client.create_upload(
            filename=path.name, size=path.stat().st_size, chunk_size=MIB, **self.options
        )
        chunks = list(chunks_of(path, chunk_size=created["chunk_size"]))
        self.deployment.client.send(created["upload_id"], chunks[: int(len(chunks) * share)])
        upload_id: str = created["upload_id"]
        return upload_id

    def _finalized(self, path: Path, *, is_stored: bool = False) -> CancellableUpload:
        upload_id = self._sent(path, share=1)
        job_id = self.deployment.client.finalize(upload_id).json()["job_id"]
        return CancellableUpload(upload_id=upload_id, job_id=job_id, is_stored=is_stored)
