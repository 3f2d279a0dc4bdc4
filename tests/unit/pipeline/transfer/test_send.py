import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.storage.errors import MultipartGone, PartReplaced
from pipeline.storage.port import Body, Multipart, StoredPart
from pipeline.transfer.checks import (
    ChunkCorrupt,
    ManifestIncomplete,
    multipart_etag,
)
from pipeline.transfer.destination import StoredObjectMismatch
from pipeline.transfer.errors import LeaseLost, TransferCancelled
from pipeline.transfer.part_pool import STOP_TIMEOUT
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

if TYPE_CHECKING:
    from schemas.errors import DomainError


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

    def look(call: Call) -> None:
        if call.part is not None:
            recorded_in_time.append(bool(recorder.created))

    storage.before = look

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


# ---- resuming an earlier attempt


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


def test_parts_are_deleted_if_the_file_now_takes_one_request(tmp_path: Path) -> None:
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
    """A store whose ETags are no digests; it declares so when it takes a part."""

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
    """Return another ETag of the same form; applied twice, it returns the first one."""
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


# ---- answers of the store


def test_a_lost_answer_to_complete_does_not_fail_the_transfer(tmp_path: Path) -> None:
    storage = FakeStorage()
    # The adapter retries and finds that the multipart upload is gone.
    storage.after = raising(MultipartGone(KEY), on="complete")

    assert send(staged_file(tmp_path), storage=storage).sha256 == sha256(CONTENT)
    assert storage.objects[KEY].content == CONTENT


def test_a_multipart_upload_aborted_meanwhile_is_retryable(tmp_path: Path) -> None:
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


# ---- faults of the staged bytes


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
def test_a_file_other_than_declared_never_becomes_an_object(tmp_path: Path, size: int) -> None:
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


# ---- cancellation, lost leases and cleanup


class DatabaseDown(Exception):
    """An error of a callback itself."""


def after_parts(number: int, error: Exception) -> Callable[[Recorder], None]:
    def raise_then(recorder: Recorder) -> None:
        if len(recorder.progress) >= number:
            raise error

    return raise_then


@pytest.mark.parametrize("error", [LeaseLost(), DatabaseDown()])
@pytest.mark.parametrize("parts", [1, 7, 15])
def test_a_lost_lease_leaves_the_parts_to_the_next_worker(
    tmp_path: Path, parts: int, error: Exception
) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path)
    recorder = Recorder(on_call=after_parts(parts, error))

    with pytest.raises(type(error)):
        send(staged, storage=storage, recorder=recorder)

    assert storage.called("abort") + storage.called("delete") + storage.called("complete") == 0
    send(staged, storage=storage, previous=recorder.created[0])
    assert storage.objects[KEY].content == CONTENT


def test_a_multipart_upload_that_cannot_be_recorded_is_aborted(tmp_path: Path) -> None:
    storage = FakeStorage()

    with pytest.raises(DatabaseDown):
        send(
            staged_file(tmp_path),
            storage=storage,
            recorder=Recorder(on_call=after_parts(0, DatabaseDown())),
        )

    assert is_empty(storage)


def test_a_suspended_worker_does_not_delete_its_successors_object(tmp_path: Path) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path)
    done = threading.Event()

    def run_successor(call: Call) -> None:
        storage.before = nothing
        send(staged, storage=storage)
        done.set()
        raise StoreRejected(call.name, reason="the first worker's multipart upload is gone")

    def lose_lease_once_succeeded(_: Recorder) -> None:
        if done.is_set():
            raise LeaseLost

    def start_sending(call: Call) -> None:
        if call.part == 1:
            run_successor(call)

    storage.before = start_sending

    with pytest.raises(LeaseLost):
        send(staged, storage=storage, recorder=Recorder(on_call=lose_lease_once_succeeded))

    assert storage.objects[KEY].content == CONTENT


def test_nothing_is_deleted_while_the_lease_cannot_be_checked(tmp_path: Path) -> None:
    storage = FakeStorage()
    storage.objects[KEY] = Object(CONTENT, "text/plain", etag="")
    refused = threading.Event()

    def refuse(call: Call) -> None:
        if call.part is not None:
            refused.set()
            raise REJECTED

    def database_down(_: Recorder) -> None:
        if refused.is_set():
            raise DatabaseDown

    storage.before = refuse

    with pytest.raises(DatabaseDown):
        send(staged_file(tmp_path), storage=storage, recorder=Recorder(on_call=database_down))

    assert KEY in storage.objects
    assert storage.open_multiparts(KEY)


def reject_parts_until_abort(storage: FakeStorage, *, at_abort: Callable[[], object]) -> None:
    def hook(call: Call) -> None:
        if call.part is not None:
            raise REJECTED
        if call.name == "abort":
            at_abort()

    storage.before = hook


def test_the_heartbeat_is_called_during_cleanup(tmp_path: Path) -> None:
    storage = FakeStorage()
    aborting, beaten = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def answer_late() -> None:
        aborting.set()
        in_time.append(beaten.wait(timeout=5))

    def beat(_: Recorder) -> None:
        if aborting.is_set():
            beaten.set()

    reject_parts_until_abort(storage, at_abort=answer_late)

    with pytest.raises(StoreRejected):
        send(staged_file(tmp_path), storage=storage, recorder=Recorder(on_call=beat))

    assert in_time
    assert all(in_time)
    assert is_empty(storage)


def test_a_lease_lost_during_cleanup_keeps_the_object(
    tmp_path: Path,
) -> None:
    storage = FakeStorage()

    def successor_stores() -> None:
        storage.objects[KEY] = Object(b"a successor's", "", etag="")

    def lose(_: Recorder) -> None:
        if KEY in storage.objects:
            raise LeaseLost

    reject_parts_until_abort(storage, at_abort=successor_stores)

    with pytest.raises(LeaseLost):
        send(staged_file(tmp_path), storage=storage, recorder=Recorder(on_call=lose))

    assert storage.objects[KEY].content == b"a successor's"


def test_running_parts_are_abandoned(tmp_path: Path) -> None:
    storage = FakeStorage()
    abandoned: list[bool] = []
    under_way = threading.Barrier(3)

    def hang(call: Call) -> None:
        if call.part is not None and call.abandoned is not None:
            with suppress(threading.BrokenBarrierError):
                under_way.wait(timeout=10)
            abandoned.append(call.abandoned.wait(timeout=10))

    def cancel_once_all_hang(_: Recorder) -> None:
        if under_way.n_waiting == 2:
            under_way.wait(timeout=10)
            raise TransferCancelled

    storage.before = hang

    with pytest.raises(TransferCancelled):
        send(
            staged_file(tmp_path),
            storage=storage,
            parallel_parts=2,
            recorder=Recorder(on_call=cancel_once_all_hang),
        )

    assert abandoned == [True, True]
    assert is_empty(storage)


def test_a_cancellation_aborts_before_running_parts_end(tmp_path: Path) -> None:
    storage = FakeStorage()
    aborted, under_way = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def answer_late(call: Call) -> None:
        if call.name == "upload_part":
            under_way.set()
            # The body is sent and the answer does not arrive: nothing is left to abandon.
            in_time.append(aborted.wait(timeout=STOP_TIMEOUT.total_seconds() / 2))

    def cancel(_: Recorder) -> None:
        if under_way.is_set():
            raise TransferCancelled

    def note_abort(call: Call) -> None:
        if call.name == "abort":
            aborted.set()

    storage.before, storage.after = answer_late, note_abort

    with pytest.raises(TransferCancelled):
        send(staged_file(tmp_path), storage=storage, recorder=Recorder(on_call=cancel))

    assert in_time
    assert all(in_time)
    assert is_empty(storage)


def test_only_temporary_errors_are_retryable() -> None:
    permanent: list[type[DomainError]] = [
        StagingMissing,
        ChunkCorrupt,
        FileDigestMismatch,
        StoredObjectMismatch,
        StoreRejected,
        TransferCancelled,
    ]

    assert not any(error.retryable for error in permanent)
    assert all(error.retryable for error in (StoreUnavailable, MultipartGone, LeaseLost))
