import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.steps.errors import LeaseLost
from pipeline.storage.errors import (
    MultipartGone,
    ObjectExists,
)
from pipeline.storage.port import Multipart
from pipeline.transfer.checks import multipart_etag
from pipeline.transfer.destination import StoredObjectMismatch
from pipeline.transfer.sources.staged_file import StagedFile
from schemas.errors import StagingMissing
from schemas.object_keys import ObjectKey
from tests.fakes.storage import Call, Etags, FakeStorage, Object, nothing, raising
from tests.unit.pipeline.transfer.recorder import Recorder
from tests.unit.pipeline.transfer.sending import HangingDelete, send
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


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
@pytest.mark.parametrize("etags", [Etags.OF_PARTS, Etags.OF_WHOLE])
def test_an_object_of_an_earlier_attempt_is_replaced(
    tmp_path: Path, size: int, etags: Etags
) -> None:
    storage = FakeStorage(etags=etags)
    left = CONTENT[:size][::-1]
    storage.objects[KEY] = Object(left, "text/plain", etag=md5(left).hex())

    send(staged_file(tmp_path, CONTENT[:size]), storage=storage)

    assert storage.objects[KEY].content == CONTENT[:size]
    assert storage.open_multiparts(KEY) == []


def delete_after_complete(storage: FakeStorage, *, staged: StagedFile) -> None:
    """Delete the staged file when the object is made, so that another read fails."""

    def lose(call: Call) -> None:
        if call.name == "complete":
            staged.path.unlink()

    storage.after = lose


def test_the_file_is_read_again_if_only_its_md5_can_verify_the_object(tmp_path: Path) -> None:
    storage = FakeStorage(etags=Etags.OF_WHOLE)
    staged = staged_file(tmp_path)
    delete_after_complete(storage, staged=staged)

    with pytest.raises(StagingMissing):
        send(staged, storage=storage, reread_max_bytes=len(CONTENT))


def test_a_new_object_of_verified_parts_is_accepted_without_a_long_reread(
    tmp_path: Path,
) -> None:
    storage = FakeStorage(etags=Etags.OF_WHOLE)
    staged = staged_file(tmp_path)
    delete_after_complete(storage, staged=staged)

    with capture_logs() as lines:
        send(staged, storage=storage, reread_max_bytes=len(CONTENT) - 1)

    assert storage.objects[KEY].content == CONTENT
    (logged,) = (line for line in lines if line["event"] == "transfer.etag_not_compared")
    assert (logged["log_level"], logged["etag"]) == ("warning", md5(CONTENT).hex())


def test_an_object_of_unknown_origin_that_is_too_large_to_reread_is_sent_again(
    tmp_path: Path,
) -> None:
    storage = FakeStorage(etags=Etags.OF_WHOLE)
    staged = staged_file(tmp_path)
    recorder = Recorder()
    storage.after = raising(MultipartGone(KEY), on="complete")
    with pytest.raises(MultipartGone):
        send(staged, storage=storage, recorder=recorder, reread_max_bytes=0)
    storage.after = nothing
    storage.calls.clear()

    send(staged, storage=storage, previous=recorder.attempt, reread_max_bytes=0)

    assert storage.parts_sent() == list(range(1, 17))
    assert storage.objects[KEY].content == CONTENT


@pytest.mark.parametrize("etags", [Etags.OPAQUE, Etags.OF_WHOLE])
def test_an_object_with_an_opaque_etag_must_have_the_right_size(
    tmp_path: Path, etags: Etags
) -> None:
    storage = FakeStorage(etags=etags)

    def shorten(call: Call) -> None:
        if call.name == "head":
            storage.objects[KEY] = Object(CONTENT[:-1], "text/plain", etag=md5(CONTENT).hex())

    storage.before = shorten

    with pytest.raises(StoredObjectMismatch):
        send(staged_file(tmp_path), storage=storage, reread_max_bytes=0)

    assert is_empty(storage)


def test_a_running_delete_of_a_leftover_is_abandoned_when_the_lease_is_lost(tmp_path: Path) -> None:
    storage = FakeStorage()
    storage.objects[KEY] = Object(b"left", "", etag="")
    storage.before = deleting = HangingDelete()

    with pytest.raises(LeaseLost):
        send(staged_file(tmp_path), storage=storage, recorder=Recorder(on_call=deleting.lose_lease))

    assert deleting.was_abandoned == [True]


def test_an_object_that_cannot_be_verified_is_replaced(tmp_path: Path) -> None:
    storage = FakeStorage(etags=Etags.OF_WHOLE)
    left = CONTENT[::-1]
    storage.objects[KEY] = Object(left, "text/plain", etag=md5(left).hex())

    send(staged_file(tmp_path), storage=storage, reread_max_bytes=0)
    assert storage.objects[KEY].content == CONTENT

    storage.objects[KEY] = Object(left, "text/plain", etag=md5(left).hex())
    send(staged_file(tmp_path), storage=storage, previous="completed once", reread_max_bytes=0)
    assert storage.objects[KEY].content == CONTENT


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
def test_an_object_that_another_attempt_completed_is_kept(tmp_path: Path, size: int) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path, CONTENT[:size])

    def complete_elsewhere(call: Call) -> None:
        if call.name in {"put", "complete"}:
            storage.before = nothing
            send(staged, storage=storage)  # aborts the multipart upload of the first attempt

    storage.before = complete_elsewhere

    sent = send(staged, storage=storage)

    assert sent.sha256 == sha256(CONTENT[:size])
    assert storage.called("delete") == 0
    assert storage.objects[KEY].content == CONTENT[:size]


def test_an_object_whose_multipart_upload_is_still_open_is_sent_again(tmp_path: Path) -> None:
    storage = FakeStorage()
    staged = staged_file(tmp_path)
    etag = multipart_etag([md5(part(number)) for number in range(1, 17)])

    def die_within_complete(call: Call) -> None:
        if call.name == "complete":
            storage.objects[KEY] = Object(CONTENT, "", etag=etag)

    storage.before = die_within_complete
    with pytest.raises(MultipartGone) as gone:
        send(staged, storage=storage)
    assert gone.value.retryable
    assert is_empty(storage)
    storage.before = nothing

    send(staged, storage=storage, previous="aborted")

    assert storage.objects[KEY].content == CONTENT


def test_a_completed_multipart_upload_that_is_still_listed_is_not_aborted(
    tmp_path: Path,
) -> None:
    class Listing(FakeStorage):
        def open_multiparts(self, key: ObjectKey) -> list[Multipart]:
            return [*super().open_multiparts(key), Multipart(key, id="multipart-1")]

    storage = Listing()

    send(staged_file(tmp_path), storage=storage)

    assert storage.called("abort") == 0


def test_a_worker_without_a_lease_does_not_delete_a_leftover(tmp_path: Path) -> None:
    storage = FakeStorage()
    storage.objects[KEY] = Object(b"a successor's", "", etag="")
    refused = threading.Event()

    def lose(_: Recorder) -> None:
        if refused.is_set():
            raise LeaseLost

    def note(call: Call) -> None:
        if call.name == "complete":
            refused.set()

    storage.before = note

    with pytest.raises(LeaseLost):
        send(staged_file(tmp_path), storage=storage, recorder=Recorder(on_call=lose))

    assert storage.objects[KEY].content == b"a successor's"


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
def test_a_key_that_always_has_another_object_fails_the_transfer(tmp_path: Path, size: int) -> None:
    storage = FakeStorage()
    storage.before = lambda call: (
        storage.objects.__setitem__(KEY, Object(b"again", "", etag=""))
        if call.name in {"put", "complete"}
        else None
    )

    with pytest.raises(ObjectExists) as exists:
        send(staged_file(tmp_path, CONTENT[:size]), storage=storage)

    assert not exists.value.retryable
    assert is_empty(storage)
