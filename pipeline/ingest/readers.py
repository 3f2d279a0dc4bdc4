"""The reader of this worker process: made at its first use, closed when the process stops."""

from functools import partial

from pipeline.enrich import enricher
from pipeline.ingest import child
from pipeline.ingest.sandbox.reader import Reader
from schemas.settings import IngestSettings

_reader: Reader | None = None


def of_this_process(settings: IngestSettings) -> Reader:
    global _reader  # noqa: PLW0603  # a process works on one document at a time
    if _reader is None:
        _reader = Reader(
            partial(child.serve, enricher=enricher.installed()),
            documents_max=settings.reader_documents_max,
        )
    return _reader


def close() -> None:
    """End the child of this process, if it has one."""
    if _reader is not None:
        _reader.close()
