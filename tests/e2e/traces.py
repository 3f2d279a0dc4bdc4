"""Finds what is left of an upload: objects, multipart uploads, files, rows, events."""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.tables.events import EventRecord
from schemas.tables.uploads import Chunk
from tests.bucket import Bucket


class Traces:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._bucket = Bucket(environment)
        self._engine = create_engine(environment["DATABASE_URL"])

    def close(self) -> None:
        self._engine.dispose()

    def files(self, *upload_ids: str) -> list[str]:
        """Return the paths below the staging and work directories that name one of the uploads."""
        found = [
            str(path)
            for name in ("STAGING_DIR", "WORK_DIR")
            for path in Path(self._environment[name]).rglob("*")
        ]
        return [path for path in found if any(upload_id in path for upload_id in upload_ids)]

    def objects(self, upload_id: str) -> set[str]:
        keys = self._bucket.keys()
        return {key for key in keys if upload_id in key}

    def multiparts(self, upload_id: str) -> list[str]:
        return [key for key in self._bucket.open_multiparts() if upload_id in key]

    def chunk_rows(self, upload_id: str) -> int:
        with Session(self._engine) as session:
            counted = select(func.count()).where(Chunk.upload_id == upload_id)
            return session.scalar(counted) or 0

    def events(self, upload_id: str) -> list[Envelope]:
        """Return every event about an upload, in the order of their transactions."""
        with Session(self._engine) as session:
            bodies = session.scalars(
                select(EventRecord.body)
                .where(EventRecord.upload_id == UUID(upload_id))
                .order_by(EventRecord.created_at, EventRecord.id),
            )
            return [envelope.decode(body) for body in bodies]
