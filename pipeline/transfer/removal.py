"""Taking out of the store what is there of an upload."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import structlog

from pipeline.storage.errors import StoreFailed
from pipeline.storage.port import Multipart, ObjectStorage
from pipeline.transfer.part_pool import PartUploadPool
from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)


def discard(key: ObjectKey, *, storage: ObjectStorage, multipart_id: str | None = None) -> None:
    """Remove whatever the store has of an upload; again is no error.

    `multipart_id`, if known, spares the search from being the only hope: some
    stores do not let everybody list multipart uploads.
    """
    try:
        _abort_multiparts(key, storage=storage, multipart_id=multipart_id)
    finally:
        # Also where the store does not say what else there is: it may never do.
        storage.delete(key)


def discard_while(
    heartbeat: Callable[[], None],
    *,
    every: timedelta,
    key: ObjectKey,
    storage: ObjectStorage,
    multipart_id: str | None,
    keep_object: bool,
) -> None:
    """Remove what the store has of an upload, as long as the heart beats.

    A worker that was asleep, or whose store was, must not delete what its successor stored.
    A store that fails is told of in the log.
    """
    with PartUploadPool[None](
        1, on_result=lambda _: None, heartbeat=heartbeat, every=every
    ) as lanes:
        steps = [
            partial(_abort_multiparts, key, storage=storage, multipart_id=multipart_id),
            *(() if keep_object else (partial(storage.delete, key, abandoned=lanes.abandoned),)),
        ]
        try:
            for step in steps:
                heartbeat()
                lanes.run(step)
        except StoreFailed as error:
            log.warning("transfer.clean_up_failed", key=key, reason=str(error))


def _abort_multiparts(key: ObjectKey, *, storage: ObjectStorage, multipart_id: str | None) -> None:
    if multipart_id is not None:
        storage.abort(Multipart(key, id=multipart_id))
    for multipart in storage.open_multiparts(key):
        storage.abort(multipart)
