"""Reading what lies in the bucket, over broken connections."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Final

import structlog

from pipeline.storage.errors import ObjectReplaced, RangeEndsEarly, StoreUnavailable
from pipeline.storage.port import ObjectRange, ObjectStorage

log = structlog.stdlib.get_logger(__name__)

TRIES_WITHOUT_A_BYTE: Final = 3


def blocks(source: ObjectRange, *, storage: ObjectStorage, abandoned: Event) -> Iterator[bytes]:
    """Yield a range's bytes once each; a connection that breaks is taken up where it broke.

    Raises:
        ObjectMissing: there is no such object.
        RangeEndsEarly: it is too short.
        ObjectReplaced: it is another one than `source` means.
        StoreUnavailable: it broke again and again without a byte between, or the store
            does not answer: that was tried often enough before it was said.
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
            if not is_open or abandoned.is_set() or failures == TRIES_WITHOUT_A_BYTE:
                raise
            log.warning("transfer.read_taken_up", bytes_read=done, reason=str(error))
