"""The local copies of the documents that this machine reads."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog

from pipeline.context import Context
from pipeline.ingest.errors import DocumentEmpty, DocumentLimitExceeded, NoDiskSpace
from pipeline.ingest.extractors import registry
from pipeline.ingest.frames import Opening
from pipeline.ingest.record import StoredDocument
from pipeline.ingest.sandbox.limits import ReadingLimits
from pipeline.steps.call_pool import CallPool
from schemas.object_keys import ObjectKey
from schemas.outcomes import Outcome
from schemas.settings import IngestSettings

log = structlog.stdlib.get_logger(__name__)

PREFIX: Final = "waybill-reading-"

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def check_size(document: StoredDocument, *, size_max: int) -> None:
    """Refuse a file before its download, which could fill the disk.

    Raises:
        DocumentEmpty: it has no bytes.
        DocumentLimitExceeded: it is too large to be read.
    """
    if document.size == 0:
        raise DocumentEmpty
    if document.size > size_max:
        raise DocumentLimitExceeded(
            f"It has {document.size} bytes, and at most {size_max} are read.",
            outcome=Outcome.LIMIT_FILE_SIZE,
        )


@contextmanager
def downloaded(
    context: Context, document: StoredDocument, *, heartbeat: Callable[[], None]
) -> Iterator[Path]:
    """Download the object of a document; the file is deleted when the block ends.

    Raises:
        ObjectMissing: there is no object.
        NoDiskSpace: the disk is full.
    """
    with _directory(context) as directory:
        file = directory / "original"
        with _full_disk_noticed(), CallPool[None](heartbeat=heartbeat) as pool:
            pool.run(partial(context.storage.download, ObjectKey(document.object_key), to=file))
        yield file


def opening_of(
    document: StoredDocument, file: Path, *, password: str | None, settings: IngestSettings
) -> Opening:
    """Return how a child opens the downloaded file of a document."""
    return Opening(
        path=str(file),
        media_type=registry.media_type_of(document.content_type, filename=document.filename),
        limits=ReadingLimits.from_settings(settings),
        password=password,
    )


@contextmanager
def _directory(context: Context) -> Iterator[Path]:
    with _full_disk_noticed():
        directory = TemporaryDirectory(prefix=PREFIX, dir=context.settings.work_dir)
    with directory as path:
        _remove_abandoned(context, own=Path(path))
        yield Path(path)


@contextmanager
def _full_disk_noticed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoDiskSpace from error
        raise


def _remove_abandoned(context: Context, *, own: Path) -> None:
    """Remove the directories of readers that were killed.

    Args:
        context: the settings.
        own: the new directory of this reader. Its time is that of the file system, which alone
            compares with the times of the others: the clock of the process may be wrong.
    """
    oldest = own.stat().st_mtime - 2 * context.settings.task_time_limit.total_seconds()
    for directory in own.parent.glob(f"{PREFIX}*"):
        # Another worker may remove it at the same time.
        with suppress(FileNotFoundError):
            if directory.stat().st_mtime < oldest:
                log.warning("ingest.abandoned_directory_removed", directory=directory.name)
                shutil.rmtree(directory)
