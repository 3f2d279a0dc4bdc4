"""Object storage in memory, which fails where a test says so.

storage = FakeStorage()
storage.before = raising(StoreUnavailable("upload_part", reason="test"), on="upload_part", part=3)
storage.after = raising(..., on="complete")   # it was done, but the answer was lost
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count
from typing import TYPE_CHECKING

from pipeline.storage.errors import BodyAltered, MultipartGone, ObjectMissing, StoreUnavailable
from pipeline.storage.file_slice import ReadAbandoned
from pipeline.storage.port import Body, Multipart, ObjectHead, StoredPart
from pipeline.transfer.checksums import multipart_etag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from threading import Event

    from schemas.object_keys import ObjectKey


class Etags(Enum):
    """What a store answers as ETag of an object made of parts."""

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


@dataclass
class OpenMultipart:
    key: ObjectKey
    content_type: str
    parts: dict[int, bytes] = field(default_factory=dict)


def nothing(_: Call) -> None:
    """Let a call pass."""


def raising(error: Exception, *, on: str, part: int | None = None) -> Callable[[Call], None]:
    """Return a hook that raises for every call of this name (and part)."""

    def hook(call: Call) -> None:
        if call.name == on and part in (None, call.part):
            raise error

    return hook


class FakeStorage:
    """Keeps what `ObjectStorage` promises; see there.

    Attributes:
        before: asked before a call does anything; may raise, wait or change files.
        after: asked once a call has done its work; raising loses the answer.
        calls: every call in the order it came in.
        objects: what is stored.
    """

    def __init__(self, *, etags: Etags = Etags.OF_PARTS) -> None:
        self.before: Callable[[Call], None] = nothing
        self.after: Callable[[Call], None] = nothing
        self.calls: list[Call] = []
        self.objects: dict[ObjectKey, Object] = {}
        self._etags = etags
        self._multiparts: dict[str, OpenMultipart] = {}
        self._ids = count(1)
        self._lock = threading.Lock()

    def parts_sent(self) -> list[int]:
        """Return the numbers of the parts somebody tried to store."""
        return sorted(call.part for call in self.calls if call.part is not None)

    def called(self, name: str) -> int:
        return sum(call.name == name for call in self.calls)

    def create_multipart(self, key: ObjectKey, *, content_type: str) -> Multipart:
        self._arrives(call := Call("create_multipart"))
        with self._lock:
            multipart = Multipart(key, id=f"multipart-{next(self._ids)}")
            self._multiparts[multipart.id] = OpenMultipart(key, content_type)
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
            contents = [opened.parts[part.number] for part in parts]
            del self._multiparts[multipart.id]
            self.objects[multipart.key] = Object(
                b"".join(contents), opened.content_type, etag=self._etag(contents)
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
            self.objects[key] = Object(content, content_type, etag=_md5(content).hex())
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

    def download(self, key: ObjectKey, *, to: Path) -> None:
        self._arrives(call := Call("download"))
        to.write_bytes(self._found(key).content)
        self.after(call)

    def delete(self, key: ObjectKey) -> None:
        self._arrives(call := Call("delete"))
        with self._lock:
            self.objects.pop(key, None)
        self.after(call)

    def _arrives(self, call: Call) -> None:
        with self._lock:
            self.calls.append(call)
        self.before(call)

    def _opened(self, multipart: Multipart) -> OpenMultipart:
        opened = self._multiparts.get(multipart.id)
        if opened is None:
            raise MultipartGone(multipart.key)
        return opened

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
