"""Reads and writes the bodies of requests and answers."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import BinaryIO, Final, Protocol, cast

from pipeline.storage.port import Body
from schemas.errors import StoreUnavailable
from schemas.runtime.s3 import translated
from schemas.settings import MIB

BLOCK: Final = MIB


class Answered(Protocol):
    """The body of an answer."""

    def read(self, amt: int) -> bytes: ...


@contextmanager
def opened(body: Body, *, abandoned: Event) -> Iterator[BinaryIO | bytes]:
    """Open a body; every try of a request needs a new reader at the first byte."""
    if isinstance(body.content, bytes):
        yield body.content
        return
    with body.content.open(abandoned=abandoned) as reader:
        # The client library is typed for BinaryIO; it uses read, seek and tell.
        yield cast("BinaryIO", reader)


def blocks(answered: Answered, *, size_bytes: int, abandoned: Event) -> Iterator[bytes]:
    """Yield the bytes of an answer as they arrive.

    Raises:
        StoreUnavailable: the bytes ended early, or `abandoned` is set.
    """
    left = size_bytes
    while left:
        if abandoned.is_set():
            raise StoreUnavailable("read", reason="abandoned")
        with translated("read"):
            block = answered.read(min(left, BLOCK))
        if not block:
            raise StoreUnavailable("read", reason=f"{left} of {size_bytes} bytes did not arrive")
        left -= len(block)
        yield block


def content_md5(body: Body) -> str:
    return base64.b64encode(body.md5).decode("ascii")
