"""Wherever an upload is staged, it becomes the same object, or none."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.storage.port import Body, Multipart, ObjectRange, StoredPart
from pipeline.transfer.checks import ChunkCorrupt, StagingTruncated
from pipeline.transfer.errors import TransferCancelled
from pipeline.transfer.plan import PartPlan
from pipeline.transfer.resume import Checkpoint, PreviousAttempt
from pipeline.transfer.send import FileTransfer, SentObject
from pipeline.transfer.sources.reference import ReferenceChanged, ReferencedObject, ReferenceMissing
from pipeline.transfer.sources.staged_objects import StagedObjects
from schemas.errors import BodyAltered, ErrorCode, StagingMissing, StoreUnavailable
from tests.fakes.storage import Call, Etags, FakeStorage, nothing, raising
from tests.unit.pipeline.transfer.recorder import Recorder
from tests.unit.pipeline.transfer.staging import (
    CONTENT,
    KEY,
    PART_SIZE,
    SOURCE,
    Kind,
    Stage,
    md5,
    part,
    sha256,
    stage,
)

EVERY_PART = list(range(1, 17))
UNAVAILABLE = StoreUnavailable("test", reason="down")

every_kind = pytest.mark.parametrize("kind", Kind)
in_bucket = pytest.mark.parametrize("kind", [Kind.CHUNKS, Kind.PARTS, Kind.REFERENCE])
copyable = pytest.mark.parametrize("kind", [Kind.PARTS, Kind.REFERENCE])
acked = pytest.mark.parametrize("kind", [Kind.FILE, Kind.CHUNKS, Kind.PARTS])


class OpaqueCopies(FakeStorage):
    """A store that tells nothing of the bytes it copied."""

    def copy_part(self, multipart: Multipart, *, number: int, source: ObjectRange) -> StoredPart:
        copied = super().copy_part(multipart, number=number, source=source)
        return StoredPart(copied.number, size_bytes=copied.size_bytes, etag="opaque")


def send(
    on: Stage,
    *,
    resume: str | PreviousAttempt | None = None,
    recorder: Recorder | None = None,
    parallel_parts: int = 3,
    work_dir: Path | None = None,
) -> SentObject:
    return FileTransfer(
        on.staged,
        to=KEY,
        storage=on.storage,
        plan=PartPlan(on.staged.size_bytes, part_size=PART_SIZE),
        parallel_parts=parallel_parts,
        previous=PreviousAttempt(resume, checkpoint=None) if isinstance(resume, str) else resume,
        listener=(recorder or Recorder()).watch(),
        work_dir=work_dir,
    ).run()


def die_at(
    part: int, on: Stage, *, resume: PreviousAttempt | None = None, parallel_parts: int = 1
) -> PreviousAttempt:
    """Have a worker die of a part, one at a time once all before it are stored; return what it reported."""
    recorder = Recorder()

    def die(call: Call) -> None:
        if call.part == part and call.name in {"upload_part", "copy_part"}:
            raise UNAVAILABLE

    on.storage.before = die
    with pytest.raises(StoreUnavailable):
        send(on, recorder=recorder, parallel_parts=parallel_parts, resume=resume)
    on.storage.before = nothing
    if resume is None:
        return recorder.reported
    return replace(resume, checkpoint=recorder.checkpoint)


def bytes_read(storage: FakeStorage) -> Callable[[], int]:
    """Count what is read from the bucket from now on, block by block."""
    blocks: list[Call] = []

    def count(call: Call) -> None:
        if call.name == "read_block":
            blocks.append(call)

    storage.after = count
    return lambda: len(blocks)


@every_kind
def test_the_object_has_the_staged_bytes(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path)
    recorder = Recorder()

    sent = send(on, recorder=recorder)

    assert on.storage.objects[KEY].content == CONTENT
    assert (sent.sha256, sent.size_bytes) == (sha256(CONTENT), len(CONTENT))
    assert on.storage.open_multiparts(KEY) == []
    assert recorder.progress == sorted(recorder.progress)
    assert recorder.progress[-1] == len(CONTENT)
    assert on.inputs <= set(on.storage.objects)


@every_kind
@pytest.mark.parametrize("size", [0, 1, PART_SIZE])
def test_a_file_of_one_part_takes_one_request(kind: Kind, tmp_path: Path, size: int) -> None:
    on = stage(kind, tmp_path, content=CONTENT[:size])
    recorder = Recorder()

    send(on, recorder=recorder)

    assert on.storage.objects[KEY].content == CONTENT[:size]
    assert on.storage.called("put") == 1
    assert on.storage.called("create_multipart") == 0
    assert recorder.progress == [size]


@every_kind
@pytest.mark.parametrize("copies_parts", [True, False])
@pytest.mark.parametrize("dies_at", [1, 2, 9, 16])
def test_the_next_attempt_sends_only_missing_parts(
    kind: Kind,
    tmp_path: Path,
    dies_at: int,
    copies_parts: bool,  # noqa: FBT001  # pytest passes it
) -> None:
    storage = FakeStorage(copies_parts=copies_parts)
    on = stage(kind, tmp_path, storage=storage)
    reported = die_at(dies_at, on, parallel_parts=3)
    [multipart] = storage.open_multiparts(KEY)
    kept = {stored.number for stored in storage.list_parts(multipart)}
    storage.calls.clear()

    send(on, resume=reported)

    missing = [number for number in EVERY_PART if number not in kept]
    if copies_parts:
        assert sorted(storage.parts_copied() + storage.parts_sent()) == missing
    else:
        assert storage.parts_sent() == missing
    assert storage.objects[KEY].content == CONTENT


@every_kind
@pytest.mark.parametrize("copies_parts", [True, False])
@pytest.mark.parametrize("dies_at", [1, 2, 9, 16])
def test_the_next_attempt_reads_nothing_before_the_checkpoint(
    kind: Kind,
    tmp_path: Path,
    dies_at: int,
    copies_parts: bool,  # noqa: FBT001  # pytest passes it
) -> None:
    on = stage(kind, tmp_path, storage=FakeStorage(copies_parts=copies_parts))
    reported = die_at(dies_at, on)
    behind = reported.checkpoint.digested_bytes if reported.checkpoint else 0
    assert behind == (dies_at - 1) * PART_SIZE
    on.damage(before=behind)
    recorder = Recorder()

    sent = send(on, resume=reported, recorder=recorder)

    assert on.storage.objects[KEY].content == CONTENT
    assert sent.sha256 == sha256(CONTENT)
    assert recorder.progress[0] >= behind
    assert recorder.created == []


@every_kind
def test_a_checkpoint_is_passed_from_attempt_to_attempt(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path)
    reported: PreviousAttempt | None = None
    for dies_at in (4, 9, 16):
        reported = die_at(dies_at, on, resume=reported)
        assert reported.checkpoint is not None
        assert reported.checkpoint.digested_bytes == (dies_at - 1) * PART_SIZE
        on.damage(before=reported.checkpoint.digested_bytes)

    assert send(on, resume=reported).sha256 == sha256(CONTENT)
    assert on.storage.objects[KEY].content == CONTENT


@every_kind
@pytest.mark.parametrize("etags", [Etags.OF_PARTS, Etags.OF_WHOLE])
def test_an_object_completed_by_a_dead_worker_is_recognised(
    kind: Kind, tmp_path: Path, etags: Etags
) -> None:
    on = stage(kind, tmp_path, storage=FakeStorage(etags=etags))
    recorder = Recorder()
    on.storage.after = raising(UNAVAILABLE, on="complete")
    with pytest.raises(StoreUnavailable):
        send(on, recorder=recorder)
    on.storage.after = nothing
    on.storage.calls.clear()
    if etags is Etags.OF_PARTS:
        # All that can tell is in the checkpoint and the ETag.
        on.damage(before=len(CONTENT))

    reported = recorder.reported
    again = Recorder()
    sent = send(on, resume=reported, recorder=again)

    assert sent.sha256 == sha256(CONTENT)
    assert on.storage.objects[KEY].content == CONTENT
    assert on.storage.called("complete") == 0
    if etags is Etags.OF_PARTS:
        # Should this worker die before it says so, too.
        assert again.checkpoint == reported.checkpoint


@every_kind
@pytest.mark.parametrize("part", [1, 5, 8])
def test_a_checkpoint_of_a_replaced_part_is_discarded(
    kind: Kind, tmp_path: Path, part: int
) -> None:
    on = stage(kind, tmp_path)
    reported = die_at(9, on)
    multipart = Multipart(KEY, id=reported.multipart_id)
    on.storage.upload_part(
        multipart,
        number=part,
        body=Body(other := bytes(PART_SIZE), md5=md5(other)),
        abandoned=threading.Event(),
    )

    assert send(on, resume=reported).sha256 == sha256(CONTENT)
    assert on.storage.objects[KEY].content == CONTENT


def test_a_checkpoint_of_another_version_of_a_reference_is_discarded(tmp_path: Path) -> None:
    on = stage(Kind.REFERENCE, tmp_path)
    reported = die_at(9, on)
    on.overwrite(SOURCE, CONTENT[::-1])
    on.staged = ReferencedObject.find(SOURCE, storage=on.storage, sha256=None, content_type=None)

    assert send(on, resume=reported).sha256 == sha256(CONTENT[::-1])
    assert on.storage.objects[KEY].content == CONTENT[::-1]


@every_kind
def test_an_unreadable_checkpoint_costs_only_another_read(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path)
    reported = die_at(9, on)
    on.storage.calls.clear()

    send(on, resume=replace(reported, checkpoint=Checkpoint(8 * PART_SIZE, state=b"of old")))

    assert on.storage.objects[KEY].content == CONTENT
    assert not set(on.storage.parts_sent() + on.storage.parts_copied()) & set(range(1, 9))


@every_kind
def test_every_part_and_the_object_are_logged(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path)

    with capture_logs() as lines:
        send(on)

    parts = [line for line in lines if line["event"] == "transfer.part_stored"]
    assert sorted(line["part"] for line in parts) == EVERY_PART
    assert {(line["size_bytes"], line["log_level"]) for line in parts} == {(PART_SIZE, "debug")}
    assert all(line["seconds"] >= 0 for line in parts)
    (whole,) = (line for line in lines if line["event"] == "transfer.object_stored")
    assert whole["log_level"] == "info"
    assert whole["source"] == on.staged.kind
    assert (whole["size_bytes"], whole["parts"], whole["parts_resumed"]) == (len(CONTENT), 16, 0)


@acked
@pytest.mark.parametrize("at", [0, PART_SIZE, len(CONTENT) - 1])
def test_a_bit_flipped_in_staging_never_becomes_an_object(
    kind: Kind, tmp_path: Path, at: int
) -> None:
    on = stage(kind, tmp_path)
    on.flip_bit(at=at)

    with pytest.raises(ChunkCorrupt):
        send(on)

    assert on.storage.called("complete") == 0
    assert on.left() == set()
    assert on.storage.open_multiparts(KEY) == []


@every_kind
@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
def test_a_missing_source_fails_with_its_own_code(kind: Kind, tmp_path: Path, size: int) -> None:
    on = stage(kind, tmp_path, content=CONTENT[:size])
    on.lose()

    with pytest.raises((StagingMissing, ReferenceMissing)) as missing:
        send(on)

    assert missing.value.code is (
        ErrorCode.REFERENCE_MISSING if kind is Kind.REFERENCE else ErrorCode.STAGING_MISSING
    )
    assert not missing.value.retryable
    assert on.left() == set()
    assert on.storage.open_multiparts(KEY) == []


@every_kind
def test_a_source_that_vanishes_during_the_transfer_is_missing(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path)

    def vanish(call: Call) -> None:
        if call.part == 2:
            on.lose()

    on.storage.before = vanish

    with pytest.raises((StagingMissing, ReferenceMissing)):
        send(on)

    assert on.left() == set()
    assert on.storage.open_multiparts(KEY) == []


@every_kind
@pytest.mark.parametrize("parts", [0, 7, 16])
def test_a_cancelled_transfer_leaves_nothing_in_the_store(
    kind: Kind, tmp_path: Path, parts: int
) -> None:
    on = stage(kind, tmp_path)

    def cancel(recorder: Recorder) -> None:
        if len(recorder.progress) >= parts:
            raise TransferCancelled

    with pytest.raises(TransferCancelled):
        send(on, recorder=Recorder(then=cancel))

    assert on.left() == set()
    assert on.storage.open_multiparts(KEY) == []


@in_bucket
def test_the_heartbeat_is_called_while_the_source_does_not_answer(
    kind: Kind, tmp_path: Path
) -> None:
    on = stage(kind, tmp_path)
    silent, enough = threading.Event(), threading.Event()
    beats: list[None] = []

    def stay_silent(call: Call) -> None:
        if call.name == "read_block":
            silent.set()
            assert enough.wait(timeout=10)

    def beat(_: Recorder) -> None:
        if silent.is_set():
            beats.append(None)
        if len(beats) == 5:
            enough.set()

    on.storage.before = stay_silent

    send(on, recorder=Recorder(then=beat))

    assert enough.is_set()


@in_bucket
def test_a_broken_read_continues_where_it_broke(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path)
    reads = iter(range(1_000))

    def break_every_third(call: Call) -> None:
        if call.name == "read_block" and next(reads) % 3 == 1:
            raise UNAVAILABLE

    on.storage.before = break_every_third

    send(on)

    assert on.storage.objects[KEY].content == CONTENT


@in_bucket
def test_a_source_that_does_not_answer_is_read_by_the_next_attempt(
    kind: Kind, tmp_path: Path
) -> None:
    on = stage(kind, tmp_path)
    recorder = Recorder()

    def stop_answering(call: Call) -> None:
        if call.name == "read_block" and recorder.progress:
            raise UNAVAILABLE

    on.storage.before = stop_answering

    with pytest.raises(StoreUnavailable):
        send(on, recorder=recorder, parallel_parts=1)
    on.storage.before = nothing
    send(on, resume=recorder.created[0])

    assert on.storage.objects[KEY].content == CONTENT


@in_bucket
def test_a_read_that_the_storage_has_retried_is_not_repeated(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path)
    on.storage.before = raising(UNAVAILABLE, on="read")

    with pytest.raises(StoreUnavailable):
        send(on)

    assert on.storage.called("read") == 1


@copyable
def test_parts_are_copied_within_the_bucket(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path)
    blocks_read = bytes_read(on.storage)

    send(on)

    assert on.storage.parts_copied() == EVERY_PART
    assert on.storage.parts_sent() == []
    # What shows the type, then each part once.
    assert blocks_read() == (16 if kind is Kind.PARTS else 1) + len(EVERY_PART)


@copyable
def test_parts_are_sent_if_the_store_does_not_copy(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path, storage=FakeStorage(copies_parts=False))

    send(on, parallel_parts=1)

    assert on.storage.parts_sent() == EVERY_PART
    assert len(on.storage.parts_copied()) < 4
    assert on.storage.objects[KEY].content == CONTENT


@copyable
def test_a_copied_part_with_an_opaque_etag_is_sent_again(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path, storage=OpaqueCopies())

    send(on)

    assert on.storage.parts_sent() == EVERY_PART
    assert on.storage.objects[KEY].content == CONTENT


@copyable
def test_bytes_that_change_between_digest_and_copy_are_not_stored(
    kind: Kind, tmp_path: Path
) -> None:
    on = stage(kind, tmp_path)

    def change(call: Call) -> None:
        if call.name == "copy_part" and call.part == 16:
            on.storage.before = nothing
            on.flip_bit(at=len(CONTENT) - 1)

    on.storage.before = change

    with pytest.raises((BodyAltered, ReferenceChanged)) as altered:
        send(on)

    assert altered.value.retryable
    assert on.left() == set()


def test_a_last_chunk_too_small_to_copy_is_sent(tmp_path: Path) -> None:
    on = stage(Kind.PARTS, tmp_path, content=CONTENT[:-1])
    assert isinstance(on.staged, StagedObjects)
    objects = StagedObjects(
        **{name: getattr(on.staged, name) for name in StagedObjects.__slots__}
        | {"copied_above": PART_SIZE - 1}
    )
    on.staged = objects

    send(on)

    assert on.storage.parts_copied() == EVERY_PART[:-1]
    assert on.storage.parts_sent() == EVERY_PART[-1:]
    assert on.storage.objects[KEY].content == CONTENT[:-1]


@pytest.mark.parametrize("kind", [Kind.CHUNKS, Kind.PARTS])
def test_a_chunk_that_became_shorter_is_corrupt(kind: Kind, tmp_path: Path) -> None:
    on = stage(kind, tmp_path)
    assert isinstance(on.staged, StagedObjects)
    on.overwrite(on.staged.keys()[3], b"short")

    with pytest.raises(StagingTruncated):
        send(on)

    assert on.left() == set()


def open_scratch_files(directory: Path) -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += descriptor.readlink().is_relative_to(directory)
    return count


def test_few_scratch_files_are_open_and_none_stays(tmp_path: Path) -> None:
    on = stage(Kind.CHUNKS, tmp_path)
    most: list[int] = []
    on.storage.before = lambda _: most.append(open_scratch_files(tmp_path))

    send(on, parallel_parts=2, work_dir=tmp_path)

    assert max(most) in {1, 2, 3}
    assert open_scratch_files(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_scratch_files_are_freed_after_a_failure(tmp_path: Path) -> None:
    on = stage(Kind.CHUNKS, tmp_path)
    on.storage.before = raising(UNAVAILABLE, on="upload_part")

    with pytest.raises(StoreUnavailable):
        send(on, parallel_parts=2, work_dir=tmp_path)

    assert open_scratch_files(tmp_path) == 0


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
@pytest.mark.parametrize("other", [CONTENT[::-1], CONTENT + b"more", b"less"])
def test_a_reference_replaced_during_the_transfer_is_copied_by_the_next_attempt(
    tmp_path: Path, size: int, other: bytes
) -> None:
    on = stage(Kind.REFERENCE, tmp_path, content=CONTENT[:size])

    def replace_it(call: Call) -> None:
        if call.part == 16 or (size == PART_SIZE and call.name == "head"):
            on.storage.before = nothing
            on.overwrite(SOURCE, other)

    on.storage.before = replace_it

    with pytest.raises((ReferenceChanged, StoreUnavailable)) as changed:
        send(on)
    assert changed.value.retryable
    assert on.left() == set()

    on.staged = ReferencedObject.find(SOURCE, storage=on.storage, sha256=None, content_type=None)
    send(on)
    assert on.storage.objects[KEY].content == other
    assert on.storage.objects[SOURCE].content == other


def test_a_reference_that_was_replaced_for_a_moment_is_detected(tmp_path: Path) -> None:
    on = stage(Kind.REFERENCE, tmp_path)
    reads = iter(range(1_000))

    def replace_for_a_while(call: Call) -> None:
        if call.name == "read":
            on.overwrite(SOURCE, CONTENT[::-1] if next(reads) == 5 else CONTENT)
        elif call.name == "head":
            on.overwrite(SOURCE, CONTENT)

    on.storage.before = replace_for_a_while

    with pytest.raises(ReferenceChanged):
        send(on)

    assert on.left() == set()


def test_a_reference_to_a_missing_object_is_missing() -> None:
    with pytest.raises(ReferenceMissing):
        ReferencedObject.find(SOURCE, storage=FakeStorage(), sha256=None, content_type=None)


def test_parts_of_another_version_of_a_reference_are_sent_again(tmp_path: Path) -> None:
    on = stage(Kind.REFERENCE, tmp_path)
    recorder = Recorder()
    on.storage.before = raising(UNAVAILABLE, on="copy_part", part=16)
    with pytest.raises(StoreUnavailable):
        send(on, recorder=recorder)
    on.storage.before = nothing
    on.flip_bit(at=0)
    on.staged = ReferencedObject.find(SOURCE, storage=on.storage, sha256=None, content_type=None)

    send(on, resume=recorder.created[0])

    assert on.storage.objects[KEY].content[1:PART_SIZE] == part(1)[1:]
    assert on.storage.objects[KEY].content == on.storage.objects[SOURCE].content
