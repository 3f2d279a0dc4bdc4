"""One attempt to send a staged file: the object, the callbacks, the answers of the store, bad bytes."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.storage.errors import MultipartGone
from pipeline.transfer.checks import (
    ChunkCorrupt,
    ManifestIncomplete,
    multipart_etag,
)
from pipeline.transfer.destination import StoredObjectMismatch
from pipeline.transfer.send import SentObject
from pipeline.transfer.sources.staged_file import StagedFile
from schemas.errors import (
    BodyAltered,
    FileDigestMismatch,
    StagingMissing,
    StoreRejected,
    StoreUnavailable,
)
from tests.fakes.storage import Call, Etags, FakeStorage, Object, nothing, raising
from tests.unit.pipeline.transfer.recorder import Recorder
from tests.unit.pipeline.transfer.sending import (
    REJECTED,
    UNAVAILABLE,
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


def test_the_object_has_the_staged_bytes_and_the_etag_of_its_parts(tmp_path: Path) -> None:
    storage = FakeStorage()

    sent = send(staged_file(tmp_path, declared=sha256(CONTENT)), storage=storage)

    assert storage.objects[KEY].content == CONTENT
    assert sent == SentObject(
        etag=multipart_etag([md5(part(number)) for number in range(1, 17)]),
        sha256=sha256(CONTENT),
        size_bytes=len(CONTENT),
        content_type="application/octet-stream",
    )
    assert storage.open_multiparts(KEY) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(max_size=600),
    chunk_size=st.integers(1, 200),
    part_size=st.integers(1, 200),
    parallel_parts=st.integers(1, 4),
)
def test_chunk_size_and_part_size_are_independent(
    tmp_path: Path, *, content: bytes, chunk_size: int, part_size: int, parallel_parts: int
) -> None:
    storage = FakeStorage()
    recorder = Recorder()

    sent = send(
        staged_file(tmp_path, content, chunk_size=chunk_size),
        storage=storage,
        recorder=recorder,
        part_size=part_size,
        parallel_parts=parallel_parts,
    )

    assert storage.objects[KEY].content == content
    assert (sent.sha256, sent.size_bytes) == (sha256(content), len(content))
    assert recorder.progress == sorted(recorder.progress)
    assert recorder.progress[-1] == len(content)


def test_an_empty_upload_needs_no_staged_file(tmp_path: Path) -> None:
    staged = staged_file(tmp_path, b"")
    staged.path.unlink()
    storage = FakeStorage()

    assert send(staged, storage=storage).sha256 == sha256(b"")
    assert storage.objects[KEY].content == b""


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
def test_the_object_has_the_sniffed_media_type(tmp_path: Path, size: int) -> None:
    content = b"%PDF-1.7\n" + CONTENT[9:size]
    staged = replace(staged_file(tmp_path, content), content_type="text/plain")
    storage = FakeStorage()

    assert send(staged, storage=storage).content_type == "application/pdf"
    assert storage.objects[KEY].content_type == "application/pdf"


def test_the_multipart_id_is_recorded_before_the_first_part_is_sent(tmp_path: Path) -> None:
    storage = FakeStorage()
    recorder = Recorder()
    recorded_in_time: list[bool] = []

    def check(call: Call) -> None:
        if call.part is not None:
            recorded_in_time.append(bool(recorder.created))

    storage.before = check

    send(staged_file(tmp_path), storage=storage, recorder=recorder)

    assert recorded_in_time == [True] * 16


def test_no_more_than_parallel_parts_are_sent_at_once(tmp_path: Path) -> None:
    storage = FakeStorage()
    slots = threading.Semaphore(3)
    three_at_once = threading.Barrier(3)

    def enter(call: Call) -> None:
        if call.part is not None:
            assert slots.acquire(blocking=False)
            if call.part <= 3:
                three_at_once.wait(timeout=10)

    storage.before = enter
    storage.after = lambda call: slots.release() if call.part is not None else None

    send(staged_file(tmp_path), storage=storage, parallel_parts=3)

    assert storage.objects[KEY].content == CONTENT


def test_every_callback_comes_from_the_calling_thread(tmp_path: Path) -> None:
    recorder = Recorder()

    send(staged_file(tmp_path), storage=FakeStorage(), recorder=recorder)

    assert recorder.threads == {threading.current_thread().name}


@pytest.mark.parametrize("slow", ["create_multipart", "upload_part", "complete", "head"])
def test_the_heartbeat_is_called_while_the_store_does_not_answer(tmp_path: Path, slow: str) -> None:
    storage = FakeStorage()
    silent, enough = threading.Event(), threading.Event()
    beats = count()

    def stay_silent(call: Call) -> None:
        if call.name == slow:
            silent.set()
            assert enough.wait(timeout=10)

    def beat(_: Recorder) -> None:
        if silent.is_set() and next(beats) == 5:
            enough.set()

    storage.before = stay_silent
    send(
        staged_file(tmp_path),
        storage=storage,
        recorder=Recorder(on_call=beat),
        parallel_parts=1,
        heartbeat_interval=timedelta(milliseconds=2),
    )

    assert enough.is_set()


def test_a_lost_answer_to_complete_does_not_fail_the_transfer(tmp_path: Path) -> None:
    storage = FakeStorage()
    # The adapter retries and finds that the multipart upload is gone.
    storage.after = raising(MultipartGone(KEY), on="complete")

    assert send(staged_file(tmp_path), storage=storage).sha256 == sha256(CONTENT)
    assert storage.objects[KEY].content == CONTENT


def test_a_multipart_upload_aborted_during_the_transfer_is_retryable(tmp_path: Path) -> None:
    storage = FakeStorage()
    storage.before = raising(MultipartGone(KEY), on="complete")

    with pytest.raises(StoreUnavailable) as failure:
        send(staged_file(tmp_path), storage=storage)

    assert failure.value.retryable


def test_an_unrecorded_multipart_upload_is_aborted(tmp_path: Path) -> None:
    storage = FakeStorage()
    store_parts(storage, {1: part(1)})

    send(staged_file(tmp_path), storage=storage)

    assert storage.open_multiparts(KEY) == []


@pytest.mark.parametrize("refusal", [UNAVAILABLE, REJECTED])
def test_a_store_that_refuses_to_list_multipart_uploads_does_not_fail_the_transfer(
    tmp_path: Path, refusal: Exception
) -> None:
    storage = FakeStorage()
    storage.before = raising(refusal, on="open_multiparts")

    assert send(staged_file(tmp_path), storage=storage).size_bytes == len(CONTENT)


@pytest.mark.parametrize("etags", list(Etags))
def test_every_form_of_etag_is_accepted(tmp_path: Path, etags: Etags) -> None:
    storage = FakeStorage(etags=etags)

    send(staged_file(tmp_path), storage=storage)

    assert storage.objects[KEY].content == CONTENT


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(lambda content: content[:-1], id="shorter"),
        pytest.param(lambda content: content[::-1], id="other bytes"),
    ],
)
def test_an_object_with_other_bytes_is_deleted(
    tmp_path: Path, size: int, stored: Callable[[bytes], bytes]
) -> None:
    storage = FakeStorage()
    content = stored(CONTENT[:size])

    def spoil(call: Call) -> None:
        if call.name == "head":
            storage.objects[KEY] = Object(content, "text/plain", etag=md5(content).hex())

    storage.before = spoil

    with pytest.raises(StoredObjectMismatch):
        send(staged_file(tmp_path, CONTENT[:size]), storage=storage)

    assert is_empty(storage)


def test_an_object_that_is_not_visible_yet_is_retryable(tmp_path: Path) -> None:
    storage = FakeStorage()

    def hide(call: Call) -> None:
        if call.name == "head":
            storage.objects.clear()

    storage.before = hide

    with pytest.raises(StoreUnavailable):
        send(staged_file(tmp_path), storage=storage)


@pytest.mark.parametrize("at", ["create_multipart", "upload_part", "complete", "head"])
def test_an_outage_keeps_the_parts_for_the_next_attempt(tmp_path: Path, at: str) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path)
    recorder = Recorder()
    storage.before = raising(UNAVAILABLE, on=at)
    with pytest.raises(StoreUnavailable):
        send(staged, storage=storage, recorder=recorder)
    assert storage.called("abort") == 0
    storage.before = nothing

    send(staged, storage=storage, previous=next(iter(recorder.created), None))

    assert storage.objects[KEY].content == CONTENT


@pytest.mark.parametrize("at", ["create_multipart", "upload_part", "complete", "head"])
def test_a_refused_transfer_leaves_nothing_in_the_store(tmp_path: Path, at: str) -> None:
    storage = FakeStorage()
    storage.before = raising(REJECTED, on=at)

    with pytest.raises(StoreRejected):
        send(staged_file(tmp_path), storage=storage)

    assert is_empty(storage)


def test_a_failed_cleanup_does_not_hide_the_first_error(tmp_path: Path) -> None:
    storage = FakeStorage()

    def refuse(call: Call) -> None:
        if call.name in {"upload_part", "abort"}:
            raise StoreRejected(call.name, reason="no")

    storage.before = refuse

    with pytest.raises(StoreRejected, match="upload_part"):
        send(staged_file(tmp_path), storage=storage)


def flip_bit(staged: StagedFile, *, at: int) -> None:
    content = bytearray(staged.path.read_bytes())
    content[at] ^= 1
    staged.path.write_bytes(content)


def test_a_file_of_one_part_is_checked_before_it_is_sent(tmp_path: Path) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path, CONTENT[:PART_SIZE])
    flip_bit(staged, at=3)

    with pytest.raises(ChunkCorrupt):
        send(staged, storage=storage)

    assert storage.called("put") == 0


def test_a_bit_flipped_between_digest_and_sending_is_refused_by_the_store(tmp_path: Path) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path)

    def flip(call: Call) -> None:
        if call.part == 16:
            flip_bit(staged, at=len(CONTENT) - 1)

    storage.before = flip

    with pytest.raises(BodyAltered):
        send(staged, storage=storage)
    storage.before = nothing
    with pytest.raises(ChunkCorrupt):
        send(staged, storage=storage)

    assert is_empty(storage)


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
def test_a_file_with_another_digest_than_declared_never_becomes_an_object(
    tmp_path: Path, size: int
) -> None:
    storage = FakeStorage()

    with pytest.raises(FileDigestMismatch):
        send(staged_file(tmp_path, CONTENT[:size], declared=sha256(b"another")), storage=storage)

    assert is_empty(storage)


def test_an_incomplete_manifest_deletes_the_parts_of_earlier_attempts(tmp_path: Path) -> None:
    storage = FakeStorage()
    multipart = store_parts(storage, {1: part(1)})
    staged = staged_file(tmp_path)

    with pytest.raises(ManifestIncomplete):
        send(replace(staged, chunks=staged.chunks[1:]), storage=storage, previous=multipart.id)

    assert is_empty(storage)


def test_a_missing_staged_file_does_not_delete_a_stored_object(tmp_path: Path) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path)
    send(staged, storage=storage)
    staged.path.unlink()

    with pytest.raises(StagingMissing):
        send(staged, storage=storage)

    assert storage.objects[KEY].content == CONTENT
