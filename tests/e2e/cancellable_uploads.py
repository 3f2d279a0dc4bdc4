"""Six moments at which an upload can be cancelled, and how each is reached."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.client import chunks_of
from tests.e2e.files import MIB, PATIENCE, random_file
from tests.e2e.watched_store import WatchedStore
from tests.e2e.whole_system import Scene
from tests.eventually import eventually
from tests.factories import pdfs


@dataclass(frozen=True, kw_only=True)
class Moment:
    """An upload that can be cancelled now."""

    upload_id: str
    job_id: str | None = None
    is_stored: bool = False


@dataclass(frozen=True, kw_only=True)
class Uploads:
    """Brings uploads to the moment they are to be cancelled at.

    Attributes:
        options: of every upload that is created.
    """

    scene: Scene
    directory: Path
    store: WatchedStore
    options: Mapping[str, Any]

    @contextmanager
    def without_chunks(self) -> Iterator[Moment]:
        yield Moment(upload_id=self._sent(self._file(mebibytes=4), share=0))

    @contextmanager
    def half_sent(self) -> Iterator[Moment]:
        yield Moment(upload_id=self._sent(self._file(mebibytes=4), share=0.5))

    @contextmanager
    def queued(self) -> Iterator[Moment]:
        with self.scene.without("transfer"):
            yield self._finalized(self._file(mebibytes=4))

    @contextmanager
    def mid_transfer(self) -> Iterator[Moment]:
        path = self._file(mebibytes=40)
        upload_id = self._sent(path, share=1)
        self.store.be_as_slow_as(8 * MIB)
        job_id = self.scene.client.finalize(upload_id).json()["job_id"]
        eventually(lambda: self.scene.client.job(job_id)["bytes_done"], until=lambda done: done > 0)
        assert self.scene.remains.multiparts(upload_id) != []
        yield Moment(upload_id=upload_id, job_id=job_id)

    @contextmanager
    def stored_and_not_read(self) -> Iterator[Moment]:
        path = self._pdf()
        with self.scene.without("ingest"):
            moment = self._finalized(path, is_stored=True)
            eventually(
                lambda: self.scene.client.job(str(moment.job_id))["stage"],
                until=lambda stage: stage == "ingest",
            )
            yield moment

    @contextmanager
    def completed(self) -> Iterator[Moment]:
        moment = self._finalized(self._pdf(), is_stored=True)
        job = self.scene.client.wait_until_settled(str(moment.job_id), timeout=PATIENCE)
        assert job["status"] == "completed"
        yield moment

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
        # Too small for the store to make parts of them by itself: whatever the
        # staging, the bytes go through the worker.
        created = self.scene.client.create_upload(
            filename=path.name, size=path.stat().st_size, chunk_size=MIB, **self.options
        )
        chunks = list(chunks_of(path, chunk_size=created["chunk_size"]))
        self.scene.client.send(created["upload_id"], chunks[: int(len(chunks) * share)])
        upload_id: str = created["upload_id"]
        return upload_id

    def _finalized(self, path: Path, *, is_stored: bool = False) -> Moment:
        upload_id = self._sent(path, share=1)
        job_id = self.scene.client.finalize(upload_id).json()["job_id"]
        return Moment(upload_id=upload_id, job_id=job_id, is_stored=is_stored)
