import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.storage.errors import (
    MultipartGone,
    ObjectExists,
)
from pipeline.storage.port import Multipart
from pipeline.transfer.checks import multipart_etag
from pipeline.transfer.destination import StoredObjectMismatch
from pipeline.transfer.errors import LeaseLost
from pipeline.transfer.sources.staged_file import StagedFile
from schemas.errors import StagingMissing
from schemas.object_keys import ObjectKey
from tests.fakes.storage import Call, Etags, FakeStorage, Object, nothing, raising
from tests.unit.pipeline.transfer.recorder import Recorder
from tests.unit.pipeline.transfer.sending import HangingDelete, send, stage
from tests.unit.pipeline.transfer.staging import (
    CONTENT,
    KEY,
    PART_SIZE,
    is_empty,
    md5,
    part,
    sha256,
)


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
@pytest.mark.parametrize("etags", [Etags.OF_PARTS, Etags.OF_WHOLE])
def test_what_an_earlier_attempt_left_at_the_key_is_replaced(
    tmp_path: Path, size: int, etags: Etags
) -> None:
    storage = FakeStorage(etags=etags)
    left = CONTENT[:size][::-1]
    storage.objects[KEY] = Object(left, "text/plain", etag=md5(left).hex())

    send(stage(tmp_path, CONTENT[:size]), storage=storage)

    assert storage.objects[KEY].content == CONTENT[:size]
    assert storage.open_multiparts(KEY) == []


def fail_to_read_again(storage: FakeStorage, *, staged: StagedFile) -> None:
    """Have the staged file gone by the time the object is made."""

    def lose(call: Call) -> None:
        if call.name == "complete":
            staged.path.unlink()

    storage.after = lose


def test_a_file_is_read_again_where_only_that_proves_the_object(tmp_path: Path) -> None:
    storage = FakeStorage(etags=Etags.OF_WHOLE)
    staged = stage(tmp_path)
    fail_to_read_again(storage, staged=staged)

    with pytest.raises(StagingMissing):
        send(staged, storage=storage, reread_max_bytes=len(CONTENT))


def test_a_file_too_large_to_be_read_again_is_believed_to_be_what_the_store_just_made(
    tmp_path: Path,
) -> None:
    storage = FakeStorage(etags=Etags.OF_WHOLE)
    staged = stage(tmp_path)
    fail_to_read_again(storage, staged=staged)

    with capture_logs() as lines:
        send(staged, storage=storage, reread_max_bytes=len(CONTENT) - 1)

    assert storage.objects[KEY].content == CONTENT
    (told,) = (line for line in lines if line["event"] == "transfer.etag_not_compared")
    assert (told["log_level"], told["etag"]) == ("warning", md5(CONTENT).hex())


def test_an_object_too_large_to_be_proven_is_sent_again_if_nobody_says_who_made_it(
    tmp_path: Path,
) -> None:
    storage = FakeStorage(etags=Etags.OF_WHOLE)
    staged = stage(tmp_path)
    recorder = Recorder()
    storage.after = raising(MultipartGone(KEY), on="complete")
    with pytest.raises(MultipartGone):
        send(staged, storage=storage, recorder=recorder, reread_max_bytes=0)
    storage.after = nothing
    storage.calls.clear()

    send(staged, storage=storage, resume=recorder.reported, reread_max_bytes=0)

    assert storage.parts_sent() == list(range(1, 17))
    assert storage.objects[KEY].content == CONTENT


@pytest.mark.parametrize("etags", [Etags.OPAQUE, Etags.OF_WHOLE])
def test_the_size_counts_where_the_etag_tells_nothing(tmp_path: Path, etags: Etags) -> None:
    storage = FakeStorage(etags=etags)

    def shorten(call: Call) -> None:
        if call.name == "head":
            storage.objects[KEY] = Object(CONTENT[:-1], "text/plain", etag=md5(CONTENT).hex())

    storage.before = shorten

    with pytest.raises(StoredObjectMismatch):
        send(stage(tmp_path), storage=storage, reread_max_bytes=0)

    assert is_empty(storage)


def test_a_leftover_is_not_deleted_any_more_once_the_lease_is_lost(tmp_path: Path) -> None:
    storage = FakeStorage()
    storage.objects[KEY] = Object(b"left", "", etag="")
    storage.before = deleting = HangingDelete()

    with pytest.raises(LeaseLost):
        send(stage(tmp_path), storage=storage, recorder=Recorder(then=deleting.lose_lease))

    assert deleting.was_abandoned == [True]


def test_an_object_nobody_can_prove_to_be_ours_is_replaced(tmp_path: Path) -> None:
    storage = FakeStorage(etags=Etags.OF_WHOLE)
    left = CONTENT[::-1]
    storage.objects[KEY] = Object(left, "text/plain", etag=md5(left).hex())

    send(stage(tmp_path), storage=storage, reread_max_bytes=0)
    assert storage.objects[KEY].content == CONTENT

    storage.objects[KEY] = Object(left, "text/plain", etag=md5(left).hex())
    send(stage(tmp_path), storage=storage, resume="completed once", reread_max_bytes=0)
    assert storage.objects[KEY].content == CONTENT


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
def test_an_object_that_is_ours_already_is_left_alone(tmp_path: Path, size: int) -> None:
    storage = FakeStorage()
    staged = stage(tmp_path, CONTENT[:size])

    def done_before(call: Call) -> None:
        if call.name in {"put", "complete"}:
            storage.before = nothing
            send(staged, storage=storage)  # its sweep aborts what the one before it began

    storage.before = done_before

    sent = send(staged, storage=storage)

    assert sent.sha256 == sha256(CONTENT[:size])
    assert storage.called("delete") == 0
    assert storage.objects[KEY].content == CONTENT[:size]


def test_an_object_that_shares_its_parts_with_an_open_upload_is_sent_anew(tmp_path: Path) -> None:
    storage = FakeStorage()
    staged = stage(tmp_path)
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

    send(staged, storage=storage, resume="aborted")

    assert storage.objects[KEY].content == CONTENT


def test_an_upload_that_is_still_listed_after_it_was_completed_is_not_aborted(
    tmp_path: Path,
) -> None:
    class Listing(FakeStorage):
        def open_multiparts(self, key: ObjectKey) -> list[Multipart]:
            return [*super().open_multiparts(key), Multipart(key, id="multipart-1")]

    storage = Listing()

    send(stage(tmp_path), storage=storage)

    assert storage.called("abort") == 0


def test_a_leftover_is_not_deleted_by_a_worker_that_lost_its_lease(tmp_path: Path) -> None:
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
        send(stage(tmp_path), storage=storage, recorder=Recorder(then=lose))

    assert storage.objects[KEY].content == b"a successor's"


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
def test_a_key_that_will_not_be_free_is_given_up(tmp_path: Path, size: int) -> None:
    storage = FakeStorage()
    storage.before = lambda call: (
        storage.objects.__setitem__(KEY, Object(b"again", "", etag=""))
        if call.name in {"put", "complete"}
        else None
    )

    with pytest.raises(ObjectExists) as exists:
        send(stage(tmp_path, CONTENT[:size]), storage=storage)

    assert not exists.value.retryable
    assert is_empty(storage)
