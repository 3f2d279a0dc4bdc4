"""Reads a range of an object and continues after broken connections."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Final

import structlog

from pipeline.storage.errors import ObjectReplaced, RangeEndsEarly
from pipeline.storage.port import ObjectRange, ObjectStorage
from schemas.errors import StoreUnavailable

log = structlog.stdlib.get_logger(__name__)

MAX_READS_WITHOUT_A_BYTE: Final = 3


def blocks(source: ObjectRange, *, storage: ObjectStorage, abandoned: Event) -> Iterator[bytes]:
    """Yield every byte of a range once; after a broken connection, read the rest anew.

    Raises:
        ObjectMissing: the object does not exist.
        RangeEndsEarly: the object is too short.
        ObjectReplaced: the object has another ETag than `source`.
        StoreUnavailable: several reads in a row returned no byte, or the store does not
            answer; the storage has retried already.
    """
    done = failures = 0
    while done < source.size_bytes:
        is_open = False
        rest = replace(source, offset=source.offset + done, size_bytes=source.size_bytes - done)
        try:
            with storage.read(rest, abandoned=abandoned) as received:
                is_open = True
                for block in received:
                    done += len(block)
                    failures = 0
                    yield block
        except (RangeEndsEarly, ObjectReplaced):
            raise
        except StoreUnavailable as error:
            failures += 1
            if not is_open or abandoned.is_set() or failures == MAX_READS_WITHOUT_A_BYTE:
                raise
            log.warning("store.read_continued", bytes_read=done, reason=str(error))
