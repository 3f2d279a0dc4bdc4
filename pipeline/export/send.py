"""Sends the file of an export to the bucket, and deletes what earlier attempts left there."""

import hashlib
from collections.abc import Callable
from functools import partial
from threading import Event

import structlog

from pipeline.steps.call_pool import CallPool
from pipeline.storage import plan
from pipeline.storage.errors import MultipartGone, ObjectExists, ObjectMissing
from pipeline.storage.file_slice import FileSlice
from pipeline.storage.plan import PartPlan
from pipeline.storage.port import Body, Multipart, ObjectStorage, StoredPart
from schemas.errors import DomainError, ErrorCode, StoreRejected
from schemas.object_keys import ObjectKey
from schemas.settings import MIB, ObjectStoreSettings

log = structlog.stdlib.get_logger(__name__)


class FileNotStored(DomainError):
    """The object in the bucket is not the file; the next attempt stores it under another key."""

    code = ErrorCode.STORED_OBJECT_MISMATCH
    retryable = True

    def __init__(self, size_bytes: int, *, found: int | None) -> None:
        seen = "no object" if found is None else f"an object of {found} bytes"
        super().__init__(f"the store has {seen} after a file of {size_bytes} bytes was sent")


def send(
    file: FileSlice,
    *,
    to: ObjectKey,
    content_type: str,
    storage: ObjectStorage,
    settings: ObjectStoreSettings,
    heartbeat: Callable[[], None],
) -> None:
    """Store a file under a key that only this attempt uses: in one request, or in parts at the same time.

    The store checks the MD5 of every request. No transaction is open meanwhile.

    Raises:
        FileNotStored: the object has another size.
        StoreFailed: the store refuses or does not answer.
    """
    parts = plan.split(
        file.size_bytes, part_size=settings.s3_part_size, max_parts=settings.s3_max_parts
    )
    stored: list[StoredPart] = []
    with CallPool[StoredPart](
        settings.s3_parallel_parts, on_result=stored.append, heartbeat=heartbeat
    ) as pool:
        if parts.is_multipart:
            _send_parts(
                file,
                parts,
                to=to,
                content_type=content_type,
                storage=storage,
                pool=pool,
                stored=stored,
            )
        else:
            pool.run(
                partial(_put, file, to=to, content_type=content_type, storage=storage, pool=pool)
            )
        try:
            found = pool.run(partial(storage.head, to)).size_bytes
        except ObjectMissing:
            found = None
    if found != file.size_bytes:
        raise FileNotStored(file.size_bytes, found=found)


def clean_up(prefix: str, *, storage: ObjectStorage, keep: ObjectKey | None = None) -> None:
    """Abort the multipart uploads and delete the objects of an export's attempts. Idempotent.

    Args:
        prefix: of the keys of the attempts.
        storage: the bucket.
        keep: the key of the attempt that completed the export.

    Raises:
        StoreFailed: the store refuses or does not answer.
    """
    try:
        for listed in list(storage.multiparts_under(prefix)):
            # Some stores list a multipart upload for a while after it was completed.
            # Aborting it would destroy the object.
            if listed.multipart.key != keep:
                storage.abort(listed.multipart)
    except StoreRejected as error:
        # Some stores do not list them. They delete what is left unfinished by rules of their own.
        log.warning("export.multiparts_not_listed", reason=str(error))
    keys = [each.key for each in storage.objects_under(prefix) if each.key != keep]
    if keys:
        storage.delete_all(keys)


def _put(
    file: FileSlice,
    *,
    to: ObjectKey,
    content_type: str,
    storage: ObjectStorage,
    pool: CallPool[StoredPart],
) -> None:
    try:
        storage.put(
            to,
            body=_body_of(file, abandoned=pool.abandoned),
            content_type=content_type,
            abandoned=pool.abandoned,
        )
    except ObjectExists:
        # An earlier try whose answer was lost: no other attempt has this key. HEAD decides.
        log.info("export.already_stored", key=to)


def _send_parts(
    file: FileSlice,
    parts: PartPlan,
    *,
    to: ObjectKey,
    content_type: str,
    storage: ObjectStorage,
    pool: CallPool[StoredPart],
    stored: list[StoredPart],
) -> None:
    multipart = pool.run(partial(storage.create_multipart, to, content_type=content_type))
    for part in parts:
        pool.wait_for_room()
        content = FileSlice(file.path, offset=part.offset, size_bytes=part.size_bytes)
        pool.start(
            partial(
                _send_part,
                content,
                multipart=multipart,
                number=part.number,
                storage=storage,
                abandoned=pool.abandoned,
            )
        )
    pool.drain()
    stored.sort(key=lambda part: part.number)
    try:
        pool.run(partial(storage.complete, multipart, parts=stored))
    except (MultipartGone, ObjectExists):
        # Completed by an earlier try whose answer was lost. HEAD decides.
        log.info("export.already_stored", key=to)


def _send_part(
    content: FileSlice,
    *,
    multipart: Multipart,
    number: int,
    storage: ObjectStorage,
    abandoned: Event,
) -> StoredPart:
    return storage.upload_part(
        multipart,
        number=number,
        body=_body_of(content, abandoned=abandoned),
        abandoned=abandoned,
    )


def _body_of(content: FileSlice, *, abandoned: Event) -> Body:
    """Return a part of the file with its MD5, for which the part is read once more."""
    md5 = hashlib.md5(usedforsecurity=False)
    with content.open(abandoned=abandoned) as reader:
        while block := reader.read(MIB):
            md5.update(block)
    return Body(content, md5=md5.digest())
