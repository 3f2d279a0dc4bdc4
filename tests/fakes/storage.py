"""Object storage in memory that fails where a test demands it.

storage = FakeStorage()
storage.before = raising(StoreUnavailable("upload_part", reason="test"), on="upload_part", part=3)
storage.after = raising(..., on="complete")   # executed, but the answer is lost
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from itertools import count
from pathlib import Path
from threading import Event

from pipeline.storage.errors import (
    CopyUnsupported,
    MultipartGone,
    ObjectExists,
    ObjectMissing,
    ObjectReplaced,
    PartReplaced,
    RangeEndsEarly,
)
from pipeline.storage.file_slice import ReadAbandoned
from pipeline.storage.port import (
    Body,
    ListedMultipart,
    ListedObject,
    Multipart,
    ObjectHead,
    ObjectRange,
    StoredPart,
)
from pipeline.transfer.checks import multipart_etag
from schemas.errors import BodyAltered, StoreUnavailable
from schemas.object_keys import ObjectKey

# Small, so that the objects of tests are read in several blocks.
BLOCK = 64 * 1024


def now() -> datetime:
    return datetime.now(UTC)


class Etags(Enum):
    """Which ETag a store gives a multipart object."""

    OF_PARTS = auto()
    OF_WHOLE = auto()
    OPAQUE = auto()  # encrypted with a key of the store's own


@dataclass(frozen=True)
class Call:
    name: str
    part: int | None = None
    abandoned: Event | None = None


@dataclass(frozen=True)
class Object:
    content: bytes
    content_type: str
    etag: str
    modified_at: datetime = field(default_factory=now, compare=False)


@dataclass
class OpenMultipart:
    key: ObjectKey
    content_type: str
    parts: dict[int, bytes] = field(default_factory=dict)
    begun_at: datetime = field(default_factory=now)


def nothing(_: Call) -> None:
    """Accept a call."""


def raising(error: Exception, *, on: str, part: int | None = None) -> Callable[[Call], None]:
    """Return a hook that raises for every call of this name (and part)."""

    def hook(call: Call) -> None:
        if call.name == on and part in (None, call.part):
            raise error

    return hook


class FakeStorage:
    """Implements `ObjectStorage` in memory.

    Attributes:
        before: called before a call does anything; may raise, block or change files.
        after: called after a call has done its work; raising loses the answer.
        calls: every call, in order.
        objects: the stored objects.
        clock: returns the time of the next stored object.

    Args:
        etags: the form of the ETags of multipart objects.
        copies_parts: False for a store that does not copy parts.
        honours_if_none_match: False for a store that replaces existing objects.
    """

    def __init__(
        self,
        *,
        etags: Etags = Etags.OF_PARTS,
        copies_parts: bool = True,
        honours_if_none_match: bool = True,
    ) -> None:
        self.clock: Callable[[], datetime] = now
        self.before: Callable[[Call], None] = nothing
        self.after: Callable[[Call], None] = nothing
        self.calls: list[Call] = []
        self.objects: dict[ObjectKey, Object] = {}
        self._etags = etags
        self._copies_parts = copies_parts
        self._honours_if_none_match = honours_if_none_match
        self._multiparts: dict[str, OpenMultipart] = {}
        self._ids = count(1)
        self._lock = threading.Lock()

    def parts_sent(self) -> list[int]:
        """Return the numbers of the parts in upload requests."""
        return self._numbers("upload_part")

    def parts_copied(self) -> list[int]:
        """Return the numbers of the parts in copy requests."""
        return self._numbers("copy_part")

    def called(self, name: str) -> int:
        return sum(call.name == name for call in self.calls)

    def create_multipart(self, key: ObjectKey, *, content_type: str) -> Multipart:
        self._arrives(call := Call("create_multipart"))
        with self._lock:
            multipart = Multipart(key, id=f"multipart-{next(self._ids)}")
            self._multiparts[multipart.id] = OpenMultipart(key, content_type, begun_at=self.clock())
        self.after(call)
        return multipart

    def upload_part(
        self, multipart: Multipart, *, number: int, body: Body, abandoned: Event
    ) -> StoredPart:
        self._arrives(call := Call("upload_part", part=number, abandoned=abandoned))
        content = _received(body, abandoned=abandoned)
        with self._lock:
            self._opened(multipart).parts[number] = content
        self.after(call)
        return StoredPart(number, size_bytes=len(content), etag=_md5(content).hex())

    def copy_part(self, multipart: Multipart, *, number: int, source: ObjectRange) -> StoredPart:
        self._arrives(call := Call("copy_part", part=number))
        if not self._copies_parts:
            raise CopyUnsupported
        with self._lock:
            self._opened(multipart)
        content = self._in_range(source)
        with self._lock:
            self._opened(multipart).parts[number] = content
        self.after(call)
        return StoredPart(number, size_bytes=len(content), etag=_md5(content).hex())

    def list_parts(self, multipart: Multipart) -> list[StoredPart]:
        self._arrives(call := Call("list_parts"))
        with self._lock:
            parts = sorted(self._opened(multipart).parts.items())
        self.after(call)
        return [
            StoredPart(number, size_bytes=len(content), etag=_md5(content).hex())
            for number, content in parts
        ]

    def complete(self, multipart: Multipart, *, parts: Sequence[StoredPart]) -> None:
        self._arrives(call := Call("complete"))
        with self._lock:
            opened = self._opened(multipart)
            self._require_free(multipart.key)
            contents = [opened.parts.get(part.number, b"") for part in parts]
            if [_md5(content).hex() for content in contents] != [part.etag for part in parts]:
                raise PartReplaced(multipart.key)
            del self._multiparts[multipart.id]
            self.objects[multipart.key] = Object(
                b"".join(contents),
                opened.content_type,
                etag=self._etag(contents),
                modified_at=self.clock(),
            )
        self.after(call)

    def abort(self, multipart: Multipart) -> None:
        self._arrives(call := Call("abort"))
        with self._lock:
            self._multiparts.pop(multipart.id, None)
        self.after(call)

    def open_multiparts(self, key: ObjectKey) -> list[Multipart]:
        self._arrives(call := Call("open_multiparts"))
        with self._lock:
            ids = [id_ for id_, opened in self._multiparts.items() if opened.key == key]
        self.after(call)
        return [Multipart(key, id=id_) for id_ in ids]

    def put(self, key: ObjectKey, *, body: Body, content_type: str, abandoned: Event) -> None:
        self._arrives(call := Call("put", abandoned=abandoned))
        content = _received(body, abandoned=abandoned)
        with self._lock:
            self._require_free(key)
            self.objects[key] = Object(
                content, content_type, etag=_md5(content).hex(), modified_at=self.clock()
            )
        self.after(call)

    def head(self, key: ObjectKey) -> ObjectHead:
        self._arrives(call := Call("head"))
        found = self._found(key)
        self.after(call)
        return ObjectHead(
            size_bytes=len(found.content),
            etag=found.etag,
            content_type=found.content_type,
            etag_is_digest=self._etags is not Etags.OPAQUE,
        )

    @contextmanager
    def read(self, source: ObjectRange, *, abandoned: Event) -> Iterator[Iterator[bytes]]:
        """Read a range; the hooks are called for each block too, as `read_block`."""
        self._arrives(call := Call("read", abandoned=abandoned))
        content = self._in_range(source)
        self.after(call)
        yield self._blocks(content, abandoned=abandoned)

    def download(self, key: ObjectKey, *, to: Path) -> None:
        self._arrives(call := Call("download"))
        to.write_bytes(self._found(key).content)
        self.after(call)

    def delete(self, key: ObjectKey, *, abandoned: Event | None = None) -> None:
        self._arrives(call := Call("delete", abandoned=abandoned))
        with self._lock:
            self.objects.pop(key, None)
        self.after(call)

    def delete_all(self, keys: Sequence[ObjectKey]) -> None:
        self._arrives(call := Call("delete_all"))
        with self._lock:
            for key in keys:
                self.objects.pop(key, None)
        self.after(call)

    def objects_under(self, prefix: str) -> Iterator[ListedObject]:
        self._arrives(call := Call("objects_under"))
        with self._lock:
            found = sorted(
                (key, stored) for key, stored in self.objects.items() if key.startswith(prefix)
            )
        self.after(call)
        for key, stored in found:
            yield ListedObject(key, modified_at=stored.modified_at)

    def multiparts_under(self, prefix: str) -> Iterator[ListedMultipart]:
        self._arrives(call := Call("multiparts_under"))
        with self._lock:
            found = [
                ListedMultipart(Multipart(opened.key, id=id_), begun_at=opened.begun_at)
                for id_, opened in self._multiparts.items()
                if opened.key.startswith(prefix)
            ]
        self.after(call)
        yield from found

    def _numbers(self, name: str) -> list[int]:
        return sorted(
            call.part for call in self.calls if call.name == name and call.part is not None
        )

    def _arrives(self, call: Call) -> None:
        with self._lock:
            self.calls.append(call)
        self.before(call)

    def _opened(self, multipart: Multipart) -> OpenMultipart:
        opened = self._multiparts.get(multipart.id)
        if opened is None:
            raise MultipartGone(multipart.key)
        return opened

    def _require_free(self, key: ObjectKey) -> None:
        if self._honours_if_none_match and key in self.objects:
            raise ObjectExists(key)

    def _in_range(self, source: ObjectRange) -> bytes:
        found = self._found(source.key)
        if source.etag not in (None, found.etag):
            raise ObjectReplaced
        content = found.content[source.offset : source.offset + source.size_bytes]
        if missing := source.size_bytes - len(content):
            raise RangeEndsEarly(source.size_bytes, missing_bytes=missing)
        return content

    def _blocks(self, content: bytes, *, abandoned: Event) -> Iterator[bytes]:
        for start in range(0, len(content), BLOCK):
            self._arrives(call := Call("read_block", abandoned=abandoned))
            if abandoned.is_set():
                raise StoreUnavailable("read", reason="abandoned")
            self.after(call)
            yield content[start : start + BLOCK]

    def _found(self, key: ObjectKey) -> Object:
        with self._lock:
            found = self.objects.get(key)
        if found is None:
            raise ObjectMissing(key)
        return found

    def _etag(self, contents: Sequence[bytes]) -> str:
        match self._etags:
            case Etags.OF_PARTS:
                return multipart_etag([_md5(content) for content in contents])
            case Etags.OF_WHOLE:
                return _md5(b"".join(contents)).hex()
            case Etags.OPAQUE:
                return f"opaque-{len(contents)}"


def _received(body: Body, *, abandoned: Event) -> bytes:
    if isinstance(body.content, bytes):
        content = body.content
    else:
        with body.content.open(abandoned=abandoned) as reader:
            try:
                content = reader.read() or b""
            except ReadAbandoned as error:
                raise StoreUnavailable("send", reason="the body ended early") from error
    if _md5(content) != body.md5:
        raise BodyAltered("send", reason="MD5")
    return content


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()
