"""What every object storage must do: one suite for the fake and for a real store."""

from __future__ import annotations

import hashlib
import os
from threading import Event
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from pipeline.storage.errors import BodyAltered, MultipartGone, ObjectMissing, StoreUnavailable
from pipeline.storage.file_slice import FileSlice
from pipeline.storage.port import Body, Multipart, ObjectStorage, StoredPart
from pipeline.storage.s3 import S3Storage
from pipeline.transfer.checksums import etag_matches
from schemas.object_keys import ObjectKey
from schemas.settings import MIB
from tests.fakes.storage import FakeStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schemas.settings import ObjectStoreSettings

PDF = "application/pdf"
# Stores refuse smaller parts, except as the last.
FIRST = os.urandom(5 * MIB)
SECOND = os.urandom(5 * MIB)
LAST = b"the last part may be small"


def md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def body(content: bytes) -> Body:
    return Body(content, md5=md5(content))


class StorageContract:
    """Subclasses bring a `storage` fixture."""

    @pytest.fixture
    def key(self) -> ObjectKey:
        return ObjectKey(f"originals/contract/{uuid4()}")

    def put(self, storage: ObjectStorage, key: ObjectKey, content: Body) -> None:
        storage.put(key, body=content, content_type=PDF, abandoned=Event())

    def upload(
        self, storage: ObjectStorage, multipart: Multipart, number: int, content: Body
    ) -> StoredPart:
        return storage.upload_part(multipart, number=number, body=content, abandoned=Event())

    def read(self, storage: ObjectStorage, key: ObjectKey, *, into: Path) -> bytes:
        storage.download(key, to=into)
        return into.read_bytes()

    def test_an_object_put_whole_can_be_read_back(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        self.put(storage, key, body(LAST))

        assert self.read(storage, key, into=tmp_path / "copy") == LAST

    def test_head_tells_size_digest_and_type(self, storage: ObjectStorage, key: ObjectKey) -> None:
        self.put(storage, key, body(LAST))

        head = storage.head(key)

        assert (head.size_bytes, head.content_type) == (len(LAST), PDF)
        assert head.etag == md5(LAST).hex()
        assert head.etag_is_digest

    def test_an_object_may_be_empty(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        self.put(storage, key, body(b""))

        assert storage.head(key).size_bytes == 0
        assert self.read(storage, key, into=tmp_path / "copy") == b""

    def test_a_second_put_replaces_the_first(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        self.put(storage, key, body(b"first"))
        self.put(storage, key, body(b"second"))

        assert self.read(storage, key, into=tmp_path / "copy") == b"second"

    def test_a_put_with_a_wrong_md5_leaves_what_was_there(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        self.put(storage, key, body(b"first"))

        with pytest.raises(BodyAltered):
            self.put(storage, key, Body(b"second", md5=md5(b"something else")))

        assert self.read(storage, key, into=tmp_path / "copy") == b"first"

    def test_a_file_slice_sends_its_bytes_and_no_others(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"before" + LAST + b"after")
        piece = FileSlice(file, offset=len(b"before"), size_bytes=len(LAST))

        self.put(storage, key, Body(piece, md5=md5(LAST)))

        assert self.read(storage, key, into=tmp_path / "copy") == LAST

    def test_an_abandoned_body_is_not_stored(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        file = tmp_path / "file"
        file.write_bytes(FIRST)
        piece = Body(FileSlice(file, offset=0, size_bytes=len(FIRST)), md5=md5(FIRST))
        abandoned = Event()
        abandoned.set()

        with pytest.raises(StoreUnavailable):
            storage.put(key, body=piece, content_type=PDF, abandoned=abandoned)

        with pytest.raises(ObjectMissing):
            storage.head(key)

    def test_parts_may_arrive_in_any_order(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        stored = {
            number: self.upload(storage, multipart, number, body(content))
            for number, content in ((3, LAST), (1, FIRST), (2, SECOND))
        }

        storage.complete(multipart, parts=[stored[1], stored[2], stored[3]])

        head = storage.head(key)
        assert etag_matches(
            head.etag,
            part_md5s=[md5(FIRST), md5(SECOND), md5(LAST)],
            file_md5=lambda: md5(FIRST + SECOND + LAST),
        )
        assert (head.size_bytes, head.content_type) == (len(FIRST + SECOND + LAST), PDF)
        assert self.read(storage, key, into=tmp_path / "copy") == FIRST + SECOND + LAST

    def test_there_is_no_object_before_complete(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        self.upload(storage, multipart, 1, body(LAST))

        with pytest.raises(ObjectMissing):
            storage.head(key)

    def test_stored_parts_are_listed_with_size_and_md5(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        second = self.upload(storage, multipart, 2, body(b"second"))
        first = self.upload(storage, multipart, 1, body(b"first"))

        assert storage.list_parts(multipart) == [first, second]
        assert first == StoredPart(1, size_bytes=len(b"first"), etag=md5(b"first").hex())

    def test_a_part_sent_again_replaces_the_first(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        self.upload(storage, multipart, 1, body(b"first"))
        again = self.upload(storage, multipart, 1, body(b"again"))

        assert storage.list_parts(multipart) == [again]

    def test_a_part_with_a_wrong_md5_is_not_kept(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)

        with pytest.raises(BodyAltered):
            self.upload(storage, multipart, 1, Body(b"bytes", md5=md5(b"other bytes")))

        assert storage.list_parts(multipart) == []

    def test_an_aborted_upload_is_gone(self, storage: ObjectStorage, key: ObjectKey) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        part = self.upload(storage, multipart, 1, body(LAST))

        storage.abort(multipart)

        with pytest.raises(MultipartGone):
            storage.list_parts(multipart)
        with pytest.raises(MultipartGone):
            self.upload(storage, multipart, 1, body(LAST))
        with pytest.raises(MultipartGone):
            storage.complete(multipart, parts=[part])

    def test_an_upload_may_be_aborted_twice(self, storage: ObjectStorage, key: ObjectKey) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)

        storage.abort(multipart)
        storage.abort(multipart)

    def test_abort_after_complete_leaves_the_object(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        part = self.upload(storage, multipart, 1, body(LAST))
        storage.complete(multipart, parts=[part])

        storage.abort(multipart)

        assert self.read(storage, key, into=tmp_path / "copy") == LAST

    def test_only_unfinished_uploads_of_exactly_this_key_are_open(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        finished = storage.create_multipart(key, content_type=PDF)
        part = self.upload(storage, finished, 1, body(LAST))
        storage.complete(finished, parts=[part])
        aborted = storage.create_multipart(key, content_type=PDF)
        storage.abort(aborted)
        storage.create_multipart(ObjectKey(f"{key}-sibling"), content_type=PDF)
        unfinished = {storage.create_multipart(key, content_type=PDF) for _ in range(2)}

        assert set(storage.open_multiparts(key)) == unfinished

    def test_a_missing_object_is_said_to_be_missing(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        with pytest.raises(ObjectMissing):
            storage.head(key)
        with pytest.raises(ObjectMissing):
            storage.download(key, to=tmp_path / "copy")

        assert not (tmp_path / "copy").exists()

    def test_a_deleted_object_is_missing_and_may_be_deleted_again(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        self.put(storage, key, body(LAST))

        storage.delete(key)
        storage.delete(key)

        with pytest.raises(ObjectMissing):
            storage.head(key)


class TestFakeStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> FakeStorage:
        return FakeStorage()


@pytest.mark.integration
class TestS3Storage(StorageContract):
    @pytest.fixture
    def storage(self, object_store_settings: ObjectStoreSettings) -> Iterator[S3Storage]:
        # One try: a refused body stays refused, and the waits would only take time.
        settings = object_store_settings.model_copy(update={"s3_attempts": 1})
        storage = S3Storage.connect(settings)
        yield storage
        storage.close()
