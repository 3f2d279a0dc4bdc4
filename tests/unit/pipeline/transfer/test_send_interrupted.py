"""The parts and objects that an attempt leaves when it is cancelled, loses its lease or fails."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.steps.call_pool import STOP_TIMEOUT
from pipeline.steps.errors import LeaseLost, StepCancelled
from pipeline.storage.errors import MultipartGone
from pipeline.transfer.checks import (
    ChunkCorrupt,
)
from pipeline.transfer.destination import StoredObjectMismatch
from schemas.errors import (
    FileDigestMismatch,
    StagingMissing,
    StoreRejected,
    StoreUnavailable,
)
from tests.fakes.storage import Call, FakeStorage, Object, nothing
from tests.unit.pipeline.transfer.recorder import Recorder
from tests.unit.pipeline.transfer.sending import (
    REJECTED,
    send,
)
from tests.unit.pipeline.transfer.staging import (
    CONTENT,
    KEY,
    is_empty,
    staged_file,
)

if TYPE_CHECKING:
    from schemas.errors import DomainError


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

    def fail_to_record(recorder: Recorder) -> None:
        if recorder.created:
            raise DatabaseDown

    with pytest.raises(DatabaseDown):
        send(staged_file(tmp_path), storage=storage, recorder=Recorder(on_call=fail_to_record))

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
    aborting, called = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def answer_late() -> None:
        aborting.set()
        in_time.append(called.wait(timeout=5))

    def heartbeat(_: Recorder) -> None:
        if aborting.is_set():
            called.set()

    reject_parts_until_abort(storage, at_abort=answer_late)

    with pytest.raises(StoreRejected):
        send(staged_file(tmp_path), storage=storage, recorder=Recorder(on_call=heartbeat))

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
    running = threading.Barrier(3)

    def hang(call: Call) -> None:
        if call.part is not None and call.abandoned is not None:
            with suppress(threading.BrokenBarrierError):
                running.wait(timeout=10)
            abandoned.append(call.abandoned.wait(timeout=10))

    def cancel_once_all_hang(_: Recorder) -> None:
        if running.n_waiting == 2:
            running.wait(timeout=10)
            raise StepCancelled

    storage.before = hang

    with pytest.raises(StepCancelled):
        send(
            staged_file(tmp_path),
            storage=storage,
            parallel_parts=2,
            recorder=Recorder(on_call=cancel_once_all_hang),
        )

    assert abandoned == [True, True]
    assert is_empty(storage)


def test_a_cancellation_aborts_the_multipart_upload_before_running_parts_end(
    tmp_path: Path,
) -> None:
    storage = FakeStorage()
    aborted, running = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def answer_late(call: Call) -> None:
        if call.name == "upload_part":
            running.set()
            # The body is sent and the answer does not arrive: nothing is left to abandon.
            in_time.append(aborted.wait(timeout=STOP_TIMEOUT.total_seconds() / 2))

    def cancel(_: Recorder) -> None:
        if running.is_set():
            raise StepCancelled

    def on_abort(call: Call) -> None:
        if call.name == "abort":
            aborted.set()

    storage.before, storage.after = answer_late, on_abort

    with pytest.raises(StepCancelled):
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
        StepCancelled,
    ]

    assert not any(error.retryable for error in permanent)
    assert all(error.retryable for error in (StoreUnavailable, MultipartGone, LeaseLost))
