"""The contract of `ObjectStorage`: one suite for the fake and for real stores.

Where stores differ, `StoreBehaviour` states what a store does, and the suite verifies it.
"""

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest

from pipeline.storage.errors import (
    CopyUnsupported,
    MultipartGone,
    ObjectExists,
    ObjectMissing,
    ObjectReplaced,
    PartReplaced,
    RangeEndsEarly,
)
from pipeline.storage.file_slice import FileSlice
from pipeline.storage.port import Body, Multipart, ObjectRange, ObjectStorage, StoredPart
from pipeline.transfer.checks import etag_matches
from schemas.errors import BodyAltered, StoreRejected, StoreUnavailable
from schemas.object_keys import ObjectKey
from schemas.settings import MIB
from tests.fakes.storage import Etags, FakeStorage
from tests.store_behaviour import EtagOfParts, StoreBehaviour

PDF = "application/pdf"
# Stores refuse smaller parts, except for the last one.
FIRST = os.urandom(5 * MIB)
SECOND = os.urandom(5 * MIB)
LAST = b"the last part may be small"


FAKE_BEHAVIOUR = StoreBehaviour(demands_large_parts=False, remembers_completed=False)


def md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def body(content: bytes) -> Body:
    return Body(content, md5=md5(content))


class StorageContract:
    """Subclasses define the fixtures `storage` and `behaviour`."""

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

    def read_range(
        self, storage: ObjectStorage, key: ObjectKey, *, offset: int, size_bytes: int
    ) -> bytes:
        source = ObjectRange(key, offset=offset, size_bytes=size_bytes)
        with storage.read(source, abandoned=Event()) as blocks:
            return b"".join(blocks)

    # ---- whole objects

    def test_an_object_stored_in_one_request_can_be_read(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        self.put(storage, key, body(LAST))

        assert self.read(storage, key, into=tmp_path / "copy") == LAST

    def test_head_returns_size_etag_and_content_type(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
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

    def test_a_second_put_keeps_the_first_object(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey, tmp_path: Path
    ) -> None:
        self.put(storage, key, body(b"first"))

        if behaviour.honours_if_none_match:
            with pytest.raises(ObjectExists):
                self.put(storage, key, body(b"second"))
        else:
            self.put(storage, key, body(b"second"))

        left = b"first" if behaviour.honours_if_none_match else b"second"
        assert self.read(storage, key, into=tmp_path / "copy") == left

    def test_a_put_with_a_wrong_md5_stores_nothing(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        with pytest.raises(BodyAltered):
            self.put(storage, key, Body(b"bytes", md5=md5(b"other bytes")))

        with pytest.raises(ObjectMissing):
            storage.head(key)

    def test_a_file_slice_sends_only_its_bytes(
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

    # ---- multipart uploads

    def test_parts_may_arrive_in_any_order(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey, tmp_path: Path
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
        assert ("-" in head.etag) is (behaviour.etag_of_parts is EtagOfParts.OF_PARTS)
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

    def test_a_part_may_be_sent_again(self, storage: ObjectStorage, key: ObjectKey) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        self.upload(storage, multipart, 1, body(b"bytes"))
        again = self.upload(storage, multipart, 1, body(b"bytes"))

        assert storage.list_parts(multipart) == [again]

    def test_a_part_sent_with_other_bytes_replaces_the_first(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        left = self.upload(storage, multipart, 1, body(b"first"))

        if behaviour.replaces_parts:
            left = self.upload(storage, multipart, 1, body(b"other"))
        else:
            with pytest.raises(StoreRejected):
                self.upload(storage, multipart, 1, body(b"other"))

        assert storage.list_parts(multipart) == [left]

    def test_complete_refuses_a_part_with_another_etag(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        part = self.upload(storage, multipart, 1, body(LAST))

        with pytest.raises(PartReplaced):
            storage.complete(multipart, parts=[replace(part, etag=md5(FIRST).hex())])

        with pytest.raises(ObjectMissing):
            storage.head(key)
        if behaviour.survives_a_replaced_part:
            assert storage.list_parts(multipart) == [part]
        else:
            with pytest.raises(MultipartGone):
                storage.list_parts(multipart)

    def test_a_part_with_a_wrong_md5_is_not_kept(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)

        with pytest.raises(BodyAltered):
            self.upload(storage, multipart, 1, Body(b"bytes", md5=md5(b"other bytes")))

        if behaviour.survives_an_altered_part:
            assert storage.list_parts(multipart) == []
        else:
            with pytest.raises(MultipartGone):
                storage.list_parts(multipart)

    def test_only_the_last_part_may_be_small(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        parts = [self.upload(storage, multipart, number, body(LAST)) for number in (1, 2)]

        if behaviour.demands_large_parts:
            with pytest.raises(StoreRejected):
                storage.complete(multipart, parts=parts)
        else:
            storage.complete(multipart, parts=parts)

    def test_complete_keeps_an_existing_object(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey, tmp_path: Path
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        part = self.upload(storage, multipart, 1, body(b"second"))
        self.put(storage, key, body(b"first"))

        if behaviour.honours_if_none_match:
            with pytest.raises(ObjectExists):
                storage.complete(multipart, parts=[part])
            assert storage.list_parts(multipart) == [part]
        else:
            storage.complete(multipart, parts=[part])

        left = b"first" if behaviour.honours_if_none_match else b"second"
        assert self.read(storage, key, into=tmp_path / "copy") == left

    def test_a_completed_multipart_upload_may_be_completed_again(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey, tmp_path: Path
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        part = self.upload(storage, multipart, 1, body(LAST))
        storage.complete(multipart, parts=[part])

        if behaviour.remembers_completed:
            storage.complete(multipart, parts=[part])
        else:
            with pytest.raises(MultipartGone):
                storage.complete(multipart, parts=[part])

        assert self.read(storage, key, into=tmp_path / "copy") == LAST

    # ---- copied parts

    def test_a_part_may_be_a_copy_of_a_range(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey, tmp_path: Path
    ) -> None:
        source = ObjectKey(f"{key}-source")
        self.put(storage, source, body(b"before" + FIRST + b"after"))
        multipart = storage.create_multipart(key, content_type=PDF)
        wanted = ObjectRange(source, offset=len(b"before"), size_bytes=len(FIRST))

        if behaviour.copies_parts:
            first = storage.copy_part(multipart, number=1, source=wanted)
        else:
            with pytest.raises(CopyUnsupported):
                storage.copy_part(multipart, number=1, source=wanted)
            assert storage.list_parts(multipart) == []
            first = self.upload(storage, multipart, 1, body(FIRST))

        last = self.upload(storage, multipart, 2, body(LAST))
        storage.complete(multipart, parts=[first, last])
        assert first == StoredPart(1, size_bytes=len(FIRST), etag=md5(FIRST).hex())
        assert self.read(storage, key, into=tmp_path / "copy") == FIRST + LAST

    def test_the_copy_probe_leaves_nothing_in_the_bucket(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey
    ) -> None:
        self.put(storage, key, body(FIRST))
        multipart = storage.create_multipart(ObjectKey(f"{key}-copy"), content_type=PDF)
        source = ObjectRange(key, offset=0, size_bytes=len(FIRST))

        if behaviour.copies_parts:
            storage.copy_part(multipart, number=1, source=source)
        else:
            with pytest.raises(CopyUnsupported):
                storage.copy_part(multipart, number=1, source=source)

        assert [listed.multipart for listed in storage.multiparts_under("")] == [multipart]
        assert [listed.key for listed in storage.objects_under("")] == [key]

    def test_a_missing_object_cannot_be_copied(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        nothing = ObjectRange(ObjectKey(f"{key}-missing"), offset=0, size_bytes=1)

        with pytest.raises(ObjectMissing if behaviour.copies_parts else CopyUnsupported):
            storage.copy_part(multipart, number=1, source=nothing)

    def test_an_aborted_multipart_upload_accepts_no_copy(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey
    ) -> None:
        source = ObjectKey(f"{key}-source")
        self.put(storage, source, body(LAST))
        multipart = storage.create_multipart(key, content_type=PDF)
        storage.abort(multipart)

        with pytest.raises(MultipartGone if behaviour.copies_parts else CopyUnsupported):
            storage.copy_part(multipart, number=1, source=ObjectRange(source, 0, len(LAST)))

    def test_a_copied_range_beyond_the_end_is_shortened_or_refused(
        self, storage: ObjectStorage, behaviour: StoreBehaviour, key: ObjectKey
    ) -> None:
        source = ObjectKey(f"{key}-source")
        self.put(storage, source, body(LAST))
        multipart = storage.create_multipart(key, content_type=PDF)
        wanted = ObjectRange(source, offset=0, size_bytes=len(LAST) + 1)

        if behaviour.cuts_copied_ranges:
            storage.copy_part(multipart, number=1, source=wanted)
            assert [part.size_bytes for part in storage.list_parts(multipart)] == [len(LAST)]
        else:
            with pytest.raises((CopyUnsupported, StoreRejected, StoreUnavailable)):
                storage.copy_part(multipart, number=1, source=wanted)
            assert storage.list_parts(multipart) == []

    # ---- aborted and open multipart uploads

    def test_an_aborted_multipart_upload_is_gone(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        part = self.upload(storage, multipart, 1, body(LAST))

        storage.abort(multipart)

        with pytest.raises(MultipartGone):
            storage.list_parts(multipart)
        with pytest.raises(MultipartGone):
            self.upload(storage, multipart, 1, body(LAST))
        with pytest.raises(MultipartGone):
            storage.complete(multipart, parts=[part])

    def test_a_multipart_upload_may_be_aborted_twice(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)

        storage.abort(multipart)
        storage.abort(multipart)

    def test_abort_after_complete_keeps_the_object(
        self, storage: ObjectStorage, key: ObjectKey, tmp_path: Path
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        part = self.upload(storage, multipart, 1, body(LAST))
        storage.complete(multipart, parts=[part])

        storage.abort(multipart)

        assert self.read(storage, key, into=tmp_path / "copy") == LAST

    def test_open_multipart_uploads_of_other_keys_are_not_listed(
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

    # ---- missing objects

    def test_head_and_download_of_a_missing_object_raise(
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

    # ---- reading ranges

    @pytest.mark.parametrize(
        ("offset", "size_bytes"),
        [(0, len(FIRST)), (0, 1), (1, 2 * MIB), (len(FIRST) - 1, 1), (7, 0)],
    )
    def test_a_range_is_read(
        self, storage: ObjectStorage, key: ObjectKey, offset: int, size_bytes: int
    ) -> None:
        self.put(storage, key, body(FIRST))

        read = self.read_range(storage, key, offset=offset, size_bytes=size_bytes)

        assert read == FIRST[offset : offset + size_bytes]

    def test_a_range_is_read_in_blocks(self, storage: ObjectStorage, key: ObjectKey) -> None:
        self.put(storage, key, body(FIRST))

        source = ObjectRange(key, offset=0, size_bytes=len(FIRST))
        with storage.read(source, abandoned=Event()) as blocks:
            assert max(len(block) for block in blocks) <= MIB

    def test_a_reader_may_stop_before_the_end_of_a_range(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        self.put(storage, key, body(FIRST))

        source = ObjectRange(key, offset=0, size_bytes=len(FIRST))
        with storage.read(source, abandoned=Event()) as blocks:
            next(blocks)

        assert self.read_range(storage, key, offset=0, size_bytes=10) == FIRST[:10]

    @pytest.mark.parametrize("offset", [0, len(LAST) - 1, len(LAST), len(LAST) + 1])
    def test_a_range_beyond_the_end_is_not_read(
        self, storage: ObjectStorage, key: ObjectKey, offset: int
    ) -> None:
        self.put(storage, key, body(LAST))

        with pytest.raises(RangeEndsEarly):
            self.read_range(storage, key, offset=offset, size_bytes=len(LAST) + 1)

    def test_an_object_with_another_etag_is_not_read(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        self.put(storage, key, body(FIRST))
        meant = ObjectRange(key, offset=1, size_bytes=5, etag=storage.head(key).etag)
        with storage.read(meant, abandoned=Event()) as blocks:
            assert b"".join(blocks) == FIRST[1:6]
        storage.delete(key)
        self.put(storage, key, body(LAST))

        with pytest.raises(ObjectReplaced), storage.read(meant, abandoned=Event()):
            pytest.fail("it was opened")

    def test_a_multipart_object_is_read_with_the_etag_of_head(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        parts = [
            self.upload(storage, multipart, 1, body(FIRST)),
            self.upload(storage, multipart, 2, body(LAST)),
        ]
        storage.complete(multipart, parts=parts)
        over_the_seam = ObjectRange(
            key, offset=len(FIRST) - 2, size_bytes=5, etag=storage.head(key).etag
        )

        with storage.read(over_the_seam, abandoned=Event()) as blocks:
            assert b"".join(blocks) == (FIRST + LAST)[len(FIRST) - 2 :][:5]

    def test_an_abandoned_read_raises(self, storage: ObjectStorage, key: ObjectKey) -> None:
        self.put(storage, key, body(FIRST))
        abandoned = Event()

        source = ObjectRange(key, offset=0, size_bytes=len(FIRST))
        with storage.read(source, abandoned=abandoned) as blocks:
            next(blocks)
            abandoned.set()
            with pytest.raises(StoreUnavailable):
                next(blocks)

    @pytest.mark.parametrize("size_bytes", [0, 1])
    def test_a_missing_object_cannot_be_read(
        self, storage: ObjectStorage, key: ObjectKey, size_bytes: int
    ) -> None:
        with pytest.raises(ObjectMissing):
            self.read_range(storage, key, offset=0, size_bytes=size_bytes)

    # ---- listing and deleting

    def test_objects_are_listed_in_order_of_key(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        for name in ("b", "c", "a/1", "a/0"):
            self.put(storage, ObjectKey(f"{key}/{name}"), body(name.encode()))
        self.put(storage, ObjectKey(f"{key}-sibling"), body(b""))

        listed = list(storage.objects_under(f"{key}/"))

        assert [each.key for each in listed] == [
            f"{key}/{name}" for name in ("a/0", "a/1", "b", "c")
        ]
        age = max(abs(datetime.now(UTC) - each.modified_at) for each in listed)
        assert age < timedelta(minutes=1)

    def test_listing_an_unused_prefix_returns_nothing(self, storage: ObjectStorage) -> None:
        assert list(storage.objects_under("unused/")) == []
        assert list(storage.multiparts_under("unused/")) == []

    def test_open_multipart_uploads_are_listed_with_their_age(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        unfinished = {
            storage.create_multipart(ObjectKey(f"{key}/{name}"), content_type=PDF)
            for name in ("a", "a", "b")
        }
        storage.create_multipart(ObjectKey(f"{key}-sibling"), content_type=PDF)

        listed = list(storage.multiparts_under(f"{key}/"))

        assert {each.multipart for each in listed} == unfinished
        assert len(listed) == len(unfinished)
        age = max(abs(datetime.now(UTC) - each.begun_at) for each in listed)
        assert age < timedelta(minutes=1)

    def test_many_objects_are_deleted_and_may_be_deleted_again(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        keys = [ObjectKey(f"{key}/{name}") for name in ("a", "b & <c>", "d")]
        kept = ObjectKey(f"{key}/kept")
        for each in (*keys, kept):
            self.put(storage, each, body(LAST))

        storage.delete_all(keys)
        storage.delete_all(keys)
        storage.delete_all([])

        assert [listed.key for listed in storage.objects_under(f"{key}/")] == [kept]

    def test_delete_all_deletes_multipart_objects(
        self, storage: ObjectStorage, key: ObjectKey
    ) -> None:
        multipart = storage.create_multipart(key, content_type=PDF)
        part = self.upload(storage, multipart, 1, body(LAST))
        storage.complete(multipart, parts=[part])

        storage.delete_all([key])

        with pytest.raises(ObjectMissing):
            storage.head(key)


class TestFakeStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> FakeStorage:
        return FakeStorage()

    @pytest.fixture
    def behaviour(self) -> StoreBehaviour:
        return FAKE_BEHAVIOUR


class TestFakeOfASimplerStore(StorageContract):
    @pytest.fixture
    def storage(self) -> FakeStorage:
        return FakeStorage(etags=Etags.OF_WHOLE, copies_parts=False, honours_if_none_match=False)

    @pytest.fixture
    def behaviour(self) -> StoreBehaviour:
        return replace(
            FAKE_BEHAVIOUR,
            copies_parts=False,
            honours_if_none_match=False,
            etag_of_parts=EtagOfParts.OF_WHOLE,
        )
