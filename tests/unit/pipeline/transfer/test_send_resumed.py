"""An attempt that continues an earlier attempt: what is sent, read or replaced."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.storage.errors import PartReplaced
from pipeline.storage.port import Body, Multipart, StoredPart
from pipeline.transfer.checks import (
    multipart_etag,
)
from pipeline.transfer.destination import StoredObjectMismatch
from schemas.errors import (
    FileDigestMismatch,
)
from tests.fakes.storage import Call, Etags, FakeStorage, Object, nothing
from tests.unit.pipeline.transfer.recorder import Recorder
from tests.unit.pipeline.transfer.sending import (
    die_at_part,
    send,
    store_parts,
)
from tests.unit.pipeline.transfer.staging import (
    CONTENT,
    KEY,
    PART_SIZE,
    is_empty,
    md5,
    part,
    sha256,
    staged_file,
)


def test_a_resumed_transfer_skips_stored_parts(tmp_path: Path) -> None:
    storage = FakeStorage()
    multipart = store_parts(storage, {number: part(number) for number in (1, 2, 5)})
    recorder = Recorder()

    send(staged_file(tmp_path), storage=storage, previous=multipart.id, recorder=recorder)

    assert storage.parts_sent() == [n for n in range(1, 17) if n not in {1, 2, 5}]
    assert storage.objects[KEY].content == CONTENT
    assert recorder.created == []
    assert recorder.progress[-1] == len(CONTENT)


def test_a_part_stored_with_other_bytes_is_sent_again(tmp_path: Path) -> None:
    storage = FakeStorage()
    multipart = store_parts(storage, {1: part(1), 2: b"\x00" * PART_SIZE})

    send(staged_file(tmp_path), storage=storage, previous=multipart.id)

    assert storage.parts_sent() == list(range(2, 17))
    assert storage.objects[KEY].content == CONTENT


@pytest.mark.parametrize("leftover", [{1: CONTENT[:100]}, {17: part(1)}])
def test_parts_of_another_plan_are_deleted(tmp_path: Path, leftover: dict[int, bytes]) -> None:
    storage = FakeStorage()
    multipart = store_parts(storage, leftover)
    recorder = Recorder()

    send(staged_file(tmp_path), storage=storage, previous=multipart.id, recorder=recorder)

    assert len(recorder.created) == 1
    assert storage.objects[KEY].content == CONTENT
    assert storage.open_multiparts(KEY) == []


def test_parts_are_deleted_if_the_new_plan_sends_the_file_in_one_request(tmp_path: Path) -> None:
    storage = FakeStorage()
    multipart = store_parts(storage, {1: part(1)})

    send(staged_file(tmp_path), storage=storage, previous=multipart.id, part_size=len(CONTENT))

    assert storage.objects[KEY].content == CONTENT
    assert storage.open_multiparts(KEY) == []


@pytest.mark.parametrize("etags", [Etags.OF_PARTS, Etags.OF_WHOLE])
def test_a_completed_object_is_not_sent_again(tmp_path: Path, etags: Etags) -> None:
    storage = FakeStorage(etags=etags)
    staged = staged_file(tmp_path)
    recorder = Recorder()
    first = send(staged, storage=storage, recorder=recorder)
    storage.calls.clear()

    again = send(staged, storage=storage, previous=recorder.created[0], recorder=recorder)

    assert again == first
    assert storage.parts_sent() == []
    assert storage.called("create_multipart") + storage.called("complete") == 0
    assert recorder.progress[-1] == len(CONTENT)


@pytest.mark.parametrize("found", [None, b"short", CONTENT[::-1]])
def test_a_transfer_whose_parts_are_gone_starts_again(tmp_path: Path, found: bytes | None) -> None:
    storage = FakeStorage()
    if found is not None:
        storage.objects[KEY] = Object(found, "text/plain", etag=md5(found).hex())

    send(staged_file(tmp_path), storage=storage, previous="gone")

    assert storage.objects[KEY].content == CONTENT
    assert storage.parts_sent() == list(range(1, 17))


@pytest.mark.parametrize("left", [CONTENT[::-1], CONTENT[1:]])
def test_an_object_that_does_not_match_the_checkpoint_is_replaced(
    tmp_path: Path, left: bytes
) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path)
    recorder = Recorder()
    send(staged, storage=storage, recorder=recorder)
    pieces = [md5(part(number, left)) for number in range(1, 17)]
    storage.objects[KEY] = Object(left, "text/plain", etag=multipart_etag(pieces))

    send(staged, storage=storage, previous=recorder.attempt)

    assert storage.objects[KEY].content == CONTENT


def test_the_last_checkpoint_is_recorded_before_complete(tmp_path: Path) -> None:
    storage = FakeStorage()
    recorder = Recorder()
    beats: list[int] = []
    storage.before = lambda call: (
        beats.append(recorder.heartbeats) if call.name == "complete" else None
    )

    send(
        staged_file(tmp_path),
        storage=storage,
        recorder=recorder,
        parallel_parts=1,
        heartbeat_interval=timedelta(hours=1),
    )

    assert beats == [1]


def test_a_completed_object_is_checked_against_the_declared_digest(tmp_path: Path) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path)
    recorder = Recorder()
    send(staged, storage=storage, recorder=recorder)

    with pytest.raises(FileDigestMismatch):
        send(replace(staged, sha256=sha256(b"other")), storage=storage, previous=recorder.attempt)

    assert is_empty(storage)


def test_an_object_with_an_opaque_etag_is_sent_again(tmp_path: Path) -> None:
    storage = FakeStorage(etags=Etags.OPAQUE)
    storage.objects[KEY] = Object(CONTENT, "text/plain", etag="opaque")

    send(staged_file(tmp_path), storage=storage, previous="gone")

    assert storage.parts_sent() == list(range(1, 17))


class StorageWithoutMd5Check(FakeStorage):
    """A store that damages part 2 once and ignores its MD5."""

    damaged_part: int | None = 2

    def upload_part(
        self, multipart: Multipart, *, number: int, body: Body, abandoned: threading.Event
    ) -> StoredPart:
        if number == self.damaged_part:
            self.damaged_part = None
            body = Body(damaged := bytes(body.size_bytes), md5=md5(damaged))
        return super().upload_part(multipart, number=number, body=body, abandoned=abandoned)


def test_the_next_attempt_sends_a_damaged_part_again(tmp_path: Path) -> None:
    storage = StorageWithoutMd5Check()
    staged = staged_file(tmp_path)
    reported = die_at_part(9, staged, storage=storage)

    send(staged, storage=storage, previous=reported)

    assert storage.objects[KEY].content == CONTENT
    # Part 10 may have been running when part 9 failed.
    assert set(storage.parts_sent()) | {10} == {2, *range(9, 17)}


@pytest.mark.parametrize("etags", [Etags.OF_PARTS, Etags.OF_WHOLE])
def test_a_damaged_part_fails_the_transfer(tmp_path: Path, etags: Etags) -> None:
    storage = StorageWithoutMd5Check(etags=etags)

    with pytest.raises(StoredObjectMismatch):
        send(staged_file(tmp_path), storage=storage, reread_max_bytes=0)

    assert is_empty(storage)


class EncryptingStorage(FakeStorage):
    """A store whose ETags are not digests, as it declares when it stores a part."""

    def __init__(self) -> None:
        super().__init__(etags=Etags.OPAQUE)

    def upload_part(
        self, multipart: Multipart, *, number: int, body: Body, abandoned: threading.Event
    ) -> StoredPart:
        stored = super().upload_part(multipart, number=number, body=body, abandoned=abandoned)
        return replace(stored, etag=_encrypted(stored.etag), etag_is_digest=False)

    def list_parts(self, multipart: Multipart) -> list[StoredPart]:
        return [
            replace(stored, etag=_encrypted(stored.etag))
            for stored in super().list_parts(multipart)
        ]

    def complete(self, multipart: Multipart, *, parts: Sequence[StoredPart]) -> None:
        super().complete(multipart, parts=[replace(p, etag=_encrypted(p.etag)) for p in parts])


def _encrypted(etag: str) -> str:
    """Return another ETag of the same form; two calls in a row return the original ETag."""
    return etag[::-1]


def test_encrypted_parts_before_the_checkpoint_are_not_sent_again(
    tmp_path: Path,
) -> None:
    storage = EncryptingStorage()
    staged = staged_file(tmp_path)
    reported = die_at_part(9, staged, storage=storage)

    assert send(staged, storage=storage, previous=reported).sha256 == sha256(CONTENT)

    assert storage.parts_sent() == list(range(9, 17))
    assert storage.objects[KEY].content == CONTENT


def test_the_next_attempt_sends_a_replaced_part_again(
    tmp_path: Path,
) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path)
    recorder = Recorder()

    def replace_a_part(call: Call) -> None:
        if call.name == "complete":
            storage.before = nothing
            [multipart] = storage.open_multiparts(KEY)
            other = Body(bytes(PART_SIZE), md5=md5(bytes(PART_SIZE)))
            storage.upload_part(multipart, number=3, body=other, abandoned=threading.Event())

    storage.before = replace_a_part
    with pytest.raises(PartReplaced) as replaced:
        send(staged, storage=storage, recorder=recorder)
    assert replaced.value.retryable
    storage.calls.clear()

    send(staged, storage=storage, previous=recorder.attempt)

    assert storage.parts_sent() == [3]
    assert storage.objects[KEY].content == CONTENT
