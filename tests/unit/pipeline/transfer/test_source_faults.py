"""Faults of a source, of the store and of workers, for every kind of source.

The same kinds without faults, with a database: tests/integration/pipeline/test_sources.py.
"""

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.steps.errors import StepCancelled
from pipeline.storage.port import Body, Multipart, ObjectRange, StoredPart
from pipeline.transfer.checks import ChunkCorrupt, StagingTruncated
from pipeline.transfer.resume import Checkpoint, PreviousAttempt
from pipeline.transfer.send import SentObject
from pipeline.transfer.sources.reference import (
    ReferenceChanged,
    ReferencedObject,
    ReferenceMissing,
)
from pipeline.transfer.sources.staged_file import StagedFile
from pipeline.transfer.sources.staged_objects import StagedObjects
from schemas.errors import BodyAltered, ErrorCode, StagingMissing, StoreUnavailable
from tests.fakes.storage import Call, Etags, FakeStorage, nothing, raising
from tests.unit.pipeline.transfer import sending
from tests.unit.pipeline.transfer.recorder import Recorder
from tests.unit.pipeline.transfer.sending import UNAVAILABLE, store_parts
from tests.unit.pipeline.transfer.staging import (
    CHUNK_SIZE,
    CONTENT,
    KEY,
    PART_SIZE,
    SOURCE,
    Kind,
    StagedUpload,
    md5,
    part,
    sha256,
    stage,
)

EVERY_PART = list(range(1, 17))

every_kind = pytest.mark.parametrize("kind", Kind)
in_bucket = pytest.mark.parametrize("kind", [Kind.CHUNKS, Kind.PARTS, Kind.REFERENCE])
copyable = pytest.mark.parametrize("kind", [Kind.PARTS, Kind.REFERENCE])
acknowledged = pytest.mark.parametrize("kind", [Kind.FILE, Kind.CHUNKS, Kind.PARTS])


class OpaqueCopies(FakeStorage):
    """A store whose ETag of a copied part is not its MD5."""

    def copy_part(self, multipart: Multipart, *, number: int, source: ObjectRange) -> StoredPart:
        copied = super().copy_part(multipart, number=number, source=source)
        return StoredPart(copied.number, size_bytes=copied.size_bytes, etag="opaque")


def send(
    upload: StagedUpload,
    *,
    previous: str | PreviousAttempt | None = None,
    recorder: Recorder | None = None,
    parallel_parts: int = 3,
    work_dir: Path | None = None,
) -> SentObject:
    return sending.send(
        upload.source,
        storage=upload.storage,
        previous=previous,
        recorder=recorder,
        parallel_parts=parallel_parts,
        work_dir=work_dir,
    )


def die_at(
    number: int,
    upload: StagedUpload,
    *,
    previous: PreviousAttempt | None = None,
    parallel_parts: int = 1,
) -> PreviousAttempt:
    return sending.die_at_part(
        number,
        upload.source,
        storage=upload.storage,
        previous=previous,
        parallel_parts=parallel_parts,
    )


# ---- resuming after a worker died


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
    upload = stage(kind, tmp_path, storage=storage)
    previous = die_at(dies_at, upload, parallel_parts=3)
    [multipart] = storage.open_multiparts(KEY)
    kept = {stored.number for stored in storage.list_parts(multipart)}
    storage.calls.clear()

    send(upload, previous=previous)

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
    upload = stage(kind, tmp_path, storage=FakeStorage(copies_parts=copies_parts))
    previous = die_at(dies_at, upload)
    digested = previous.checkpoint.digested_bytes if previous.checkpoint else 0
    assert digested == (dies_at - 1) * PART_SIZE
    upload.damage(before=digested)
    recorder = Recorder()

    sent = send(upload, previous=previous, recorder=recorder)

    assert upload.storage.objects[KEY].content == CONTENT
    assert sent.sha256 == sha256(CONTENT)
    assert recorder.progress[0] >= digested
    assert recorder.created == []


@every_kind
def test_a_checkpoint_is_passed_from_attempt_to_attempt(kind: Kind, tmp_path: Path) -> None:
    upload = stage(kind, tmp_path)
    previous: PreviousAttempt | None = None
    for dies_at in (4, 9, 16):
        previous = die_at(dies_at, upload, previous=previous)
        assert previous.checkpoint is not None
        assert previous.checkpoint.digested_bytes == (dies_at - 1) * PART_SIZE
        upload.damage(before=previous.checkpoint.digested_bytes)

    assert send(upload, previous=previous).sha256 == sha256(CONTENT)
    assert upload.storage.objects[KEY].content == CONTENT


@every_kind
@pytest.mark.parametrize("etags", [Etags.OF_PARTS, Etags.OF_WHOLE])
def test_an_object_completed_by_a_dead_worker_is_recognised(
    kind: Kind, tmp_path: Path, etags: Etags
) -> None:
    upload = stage(kind, tmp_path, storage=FakeStorage(etags=etags))
    recorder = Recorder()
    upload.storage.after = raising(UNAVAILABLE, on="complete")
    with pytest.raises(StoreUnavailable):
        send(upload, recorder=recorder)
    upload.storage.after = nothing
    upload.storage.calls.clear()
    if etags is Etags.OF_PARTS:
        # The checkpoint and the ETag suffice; the source is not read.
        upload.damage(before=len(CONTENT))

    again = Recorder()
    sent = send(upload, previous=recorder.attempt, recorder=again)

    assert sent.sha256 == sha256(CONTENT)
    assert upload.storage.objects[KEY].content == CONTENT
    assert upload.storage.called("complete") == 0
    if etags is Etags.OF_PARTS:
        # In case this worker also dies.
        assert again.checkpoint == recorder.checkpoint


@every_kind
@pytest.mark.parametrize("number", [1, 5, 8])
def test_a_checkpoint_of_a_replaced_part_is_discarded(
    kind: Kind, tmp_path: Path, number: int
) -> None:
    upload = stage(kind, tmp_path)
    previous = die_at(9, upload)
    upload.storage.upload_part(
        Multipart(KEY, id=previous.multipart_id),
        number=number,
        body=Body(other := bytes(PART_SIZE), md5=md5(other)),
        abandoned=threading.Event(),
    )

    assert send(upload, previous=previous).sha256 == sha256(CONTENT)
    assert upload.storage.objects[KEY].content == CONTENT


@every_kind
def test_an_unreadable_checkpoint_does_not_make_the_transfer_send_parts_again(
    kind: Kind, tmp_path: Path
) -> None:
    upload = stage(kind, tmp_path)
    previous = die_at(9, upload)

    send(upload, previous=replace(previous, checkpoint=Checkpoint(8 * PART_SIZE, state=b"old")))

    assert upload.storage.objects[KEY].content == CONTENT
    assert not set(upload.storage.parts_sent() + upload.storage.parts_copied()) & set(range(1, 9))


# ---- one request, log lines


@every_kind
@pytest.mark.parametrize("size", [0, 1, PART_SIZE])
def test_a_file_of_one_part_takes_one_request(kind: Kind, tmp_path: Path, size: int) -> None:
    upload = stage(kind, tmp_path, content=CONTENT[:size])
    recorder = Recorder()

    sent = send(upload, recorder=recorder)

    assert upload.storage.objects[KEY].content == CONTENT[:size]
    assert sent.etag == md5(CONTENT[:size]).hex()
    assert upload.storage.called("put") == 1
    assert upload.storage.called("create_multipart") == 0
    assert recorder.progress == [size]


@every_kind
def test_every_part_and_the_object_are_logged(kind: Kind, tmp_path: Path) -> None:
    upload = stage(kind, tmp_path)

    with capture_logs() as lines:
        send(upload)

    parts = [line for line in lines if line["event"] == "transfer.part_stored"]
    assert sorted(line["part"] for line in parts) == EVERY_PART
    assert {(line["size_bytes"], line["log_level"]) for line in parts} == {(PART_SIZE, "debug")}
    assert all(line["seconds"] >= 0 for line in parts)
    (stored,) = (line for line in lines if line["event"] == "transfer.object_stored")
    assert stored["log_level"] == "info"
    assert stored["source"] == upload.source.kind
    assert (stored["size_bytes"], stored["parts"], stored["parts_resumed"]) == (len(CONTENT), 16, 0)


# ---- faults of the source


@acknowledged
@pytest.mark.parametrize("at", [0, PART_SIZE, CHUNK_SIZE - 1, len(CONTENT) - 1])
def test_a_bit_flipped_in_staging_never_becomes_an_object(
    kind: Kind, tmp_path: Path, at: int
) -> None:
    upload = stage(kind, tmp_path)
    upload.flip_bit(at=at)
    chunk_size = PART_SIZE if kind is Kind.PARTS else CHUNK_SIZE

    with pytest.raises(ChunkCorrupt, match=f"chunk {at // chunk_size} "):
        send(upload)

    assert upload.storage.called("complete") == 0
    assert upload.left() == set()
    assert upload.storage.open_multiparts(KEY) == []


@acknowledged
def test_staged_bytes_that_end_early_are_corrupt(kind: Kind, tmp_path: Path) -> None:
    upload = stage(kind, tmp_path)
    if isinstance(upload.source, StagedFile):
        upload.source.path.write_bytes(CONTENT[:-1])
    elif isinstance(upload.source, StagedObjects):
        upload.overwrite(upload.source.keys()[3], b"short")

    with pytest.raises(StagingTruncated):
        send(upload)

    assert upload.left() == set()
    assert upload.storage.open_multiparts(KEY) == []


@every_kind
@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
def test_a_missing_source_fails_with_its_own_code(kind: Kind, tmp_path: Path, size: int) -> None:
    upload = stage(kind, tmp_path, content=CONTENT[:size])
    upload.lose()
    earlier = store_parts(upload.storage, {1: part(1)})

    with pytest.raises((StagingMissing, ReferenceMissing)) as missing:
        send(upload, previous=earlier.id)

    assert missing.value.code is (
        ErrorCode.REFERENCE_MISSING if kind is Kind.REFERENCE else ErrorCode.STAGING_MISSING
    )
    assert not missing.value.retryable
    assert upload.left() == set()
    assert upload.storage.open_multiparts(KEY) == []


@every_kind
def test_a_source_that_vanishes_during_the_transfer_is_missing(kind: Kind, tmp_path: Path) -> None:
    upload = stage(kind, tmp_path)

    def vanish(call: Call) -> None:
        if call.part == 2:
            upload.lose()

    upload.storage.before = vanish

    with pytest.raises((StagingMissing, ReferenceMissing)):
        send(upload)

    assert upload.left() == set()
    assert upload.storage.open_multiparts(KEY) == []


@every_kind
@pytest.mark.parametrize("parts", [0, 1, 7, 16])
def test_a_cancelled_transfer_leaves_nothing_in_the_store(
    kind: Kind, tmp_path: Path, parts: int
) -> None:
    upload = stage(kind, tmp_path)

    def cancel(recorder: Recorder) -> None:
        if len(recorder.progress) >= parts:
            raise StepCancelled

    with pytest.raises(StepCancelled):
        send(upload, recorder=Recorder(on_call=cancel))

    assert upload.left() == set()
    assert upload.storage.open_multiparts(KEY) == []


# ---- reading from the bucket


@in_bucket
def test_the_heartbeat_is_called_while_the_source_does_not_answer(
    kind: Kind, tmp_path: Path
) -> None:
    upload = stage(kind, tmp_path)
    is_silent, enough = threading.Event(), threading.Event()
    heartbeats: list[None] = []

    def block(call: Call) -> None:
        if call.name == "read_block":
            is_silent.set()
            assert enough.wait(timeout=10)

    def count(_: Recorder) -> None:
        if is_silent.is_set():
            heartbeats.append(None)
        if len(heartbeats) == 5:
            enough.set()

    upload.storage.before = block

    send(upload, recorder=Recorder(on_call=count))

    assert enough.is_set()


@in_bucket
def test_a_broken_read_continues_where_it_broke(kind: Kind, tmp_path: Path) -> None:
    upload = stage(kind, tmp_path)
    reads = iter(range(1_000))

    def break_every_third(call: Call) -> None:
        if call.name == "read_block" and next(reads) % 3 == 1:
            raise UNAVAILABLE

    upload.storage.before = break_every_third

    send(upload)

    assert upload.storage.objects[KEY].content == CONTENT


@in_bucket
def test_a_source_that_does_not_answer_is_read_by_the_next_attempt(
    kind: Kind, tmp_path: Path
) -> None:
    upload = stage(kind, tmp_path)
    recorder = Recorder()

    def stop_answering(call: Call) -> None:
        if call.name == "read_block" and recorder.progress:
            raise UNAVAILABLE

    upload.storage.before = stop_answering

    with pytest.raises(StoreUnavailable):
        send(upload, recorder=recorder, parallel_parts=1)
    upload.storage.before = nothing
    send(upload, previous=recorder.created[0])

    assert upload.storage.objects[KEY].content == CONTENT


@in_bucket
def test_a_read_that_the_storage_has_retried_is_not_repeated(kind: Kind, tmp_path: Path) -> None:
    upload = stage(kind, tmp_path)
    upload.storage.before = raising(UNAVAILABLE, on="read")

    with pytest.raises(StoreUnavailable):
        send(upload)

    assert upload.storage.called("read") == 1


# ---- copying within the bucket


@copyable
def test_parts_are_copied_within_the_bucket_and_read_once(kind: Kind, tmp_path: Path) -> None:
    upload = stage(kind, tmp_path)
    blocks: list[Call] = []
    upload.storage.after = lambda call: blocks.append(call) if call.name == "read_block" else None

    send(upload)

    assert upload.storage.parts_copied() == EVERY_PART
    assert upload.storage.parts_sent() == []
    # The first bytes for the media type, then each part once.
    assert len(blocks) == (16 if kind is Kind.PARTS else 1) + len(EVERY_PART)


@copyable
def test_parts_are_sent_if_the_store_does_not_copy(kind: Kind, tmp_path: Path) -> None:
    upload = stage(kind, tmp_path, storage=FakeStorage(copies_parts=False))

    send(upload, parallel_parts=1)

    assert upload.storage.parts_sent() == EVERY_PART
    assert len(upload.storage.parts_copied()) < 4
    assert upload.storage.objects[KEY].content == CONTENT


@copyable
def test_a_copied_part_with_an_opaque_etag_is_sent_again(kind: Kind, tmp_path: Path) -> None:
    upload = stage(kind, tmp_path, storage=OpaqueCopies())

    send(upload)

    assert upload.storage.parts_sent() == EVERY_PART
    assert upload.storage.objects[KEY].content == CONTENT


@copyable
def test_bytes_that_change_between_digest_and_copy_are_not_stored(
    kind: Kind, tmp_path: Path
) -> None:
    upload = stage(kind, tmp_path)

    def change(call: Call) -> None:
        if call.name == "copy_part" and call.part == 16:
            upload.storage.before = nothing
            upload.flip_bit(at=len(CONTENT) - 1)

    upload.storage.before = change

    with pytest.raises((BodyAltered, ReferenceChanged)) as altered:
        send(upload)

    assert altered.value.retryable
    assert upload.left() == set()


def test_a_last_chunk_too_small_to_copy_is_sent(tmp_path: Path) -> None:
    upload = stage(Kind.PARTS, tmp_path, content=CONTENT[:-1])
    assert isinstance(upload.source, StagedObjects)
    upload.source = replace(upload.source, copied_above=PART_SIZE - 1)

    send(upload)

    assert upload.storage.parts_copied() == EVERY_PART[:-1]
    assert upload.storage.parts_sent() == EVERY_PART[-1:]
    assert upload.storage.objects[KEY].content == CONTENT[:-1]


# ---- scratch files


def open_scratch_files(directory: Path) -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += descriptor.readlink().is_relative_to(directory)
    return count


def test_few_scratch_files_are_open_and_none_stays(tmp_path: Path) -> None:
    upload = stage(Kind.CHUNKS, tmp_path)
    counts: list[int] = []
    upload.storage.before = lambda _: counts.append(open_scratch_files(tmp_path))

    send(upload, parallel_parts=2, work_dir=tmp_path)

    # Two parts are sent, and one is read or queued.
    assert max(counts) in {1, 2, 3}
    assert open_scratch_files(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_scratch_files_are_freed_after_a_failure(tmp_path: Path) -> None:
    upload = stage(Kind.CHUNKS, tmp_path)
    upload.storage.before = raising(UNAVAILABLE, on="upload_part")

    with pytest.raises(StoreUnavailable):
        send(upload, parallel_parts=2, work_dir=tmp_path)

    assert open_scratch_files(tmp_path) == 0


# ---- references that change


def find(upload: StagedUpload) -> ReferencedObject:
    return ReferencedObject.find(SOURCE, storage=upload.storage, sha256=None, content_type=None)


def test_a_checkpoint_of_another_version_of_a_reference_is_discarded(tmp_path: Path) -> None:
    upload = stage(Kind.REFERENCE, tmp_path)
    previous = die_at(9, upload)
    upload.overwrite(SOURCE, CONTENT[::-1])
    upload.source = find(upload)

    assert send(upload, previous=previous).sha256 == sha256(CONTENT[::-1])
    assert upload.storage.objects[KEY].content == CONTENT[::-1]


@pytest.mark.parametrize("size", [PART_SIZE, len(CONTENT)])
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(CONTENT[::-1], id="other bytes"),
        pytest.param(CONTENT + b"more", id="longer"),
        pytest.param(b"less", id="shorter"),
    ],
)
def test_a_reference_replaced_during_the_transfer_is_copied_by_the_next_attempt(
    tmp_path: Path, size: int, other: bytes
) -> None:
    upload = stage(Kind.REFERENCE, tmp_path, content=CONTENT[:size])

    def replace_reference(call: Call) -> None:
        if call.part == 16 or (size == PART_SIZE and call.name == "head"):
            upload.storage.before = nothing
            upload.overwrite(SOURCE, other)

    upload.storage.before = replace_reference

    with pytest.raises((ReferenceChanged, StoreUnavailable)) as changed:
        send(upload)
    assert changed.value.retryable
    assert upload.left() == set()

    upload.source = find(upload)
    send(upload)
    assert upload.storage.objects[KEY].content == other
    assert upload.storage.objects[SOURCE].content == other


def test_a_reference_that_was_replaced_and_restored_is_detected(tmp_path: Path) -> None:
    upload = stage(Kind.REFERENCE, tmp_path)
    reads = iter(range(1_000))

    def replace_for_one_read(call: Call) -> None:
        if call.name == "read":
            upload.overwrite(SOURCE, CONTENT[::-1] if next(reads) == 5 else CONTENT)
        elif call.name == "head":
            upload.overwrite(SOURCE, CONTENT)

    upload.storage.before = replace_for_one_read

    with pytest.raises(ReferenceChanged):
        send(upload)

    assert upload.left() == set()


def test_a_reference_to_a_missing_object_is_missing() -> None:
    with pytest.raises(ReferenceMissing):
        ReferencedObject.find(SOURCE, storage=FakeStorage(), sha256=None, content_type=None)


def test_parts_of_another_version_of_a_reference_are_sent_again(tmp_path: Path) -> None:
    upload = stage(Kind.REFERENCE, tmp_path)
    recorder = Recorder()
    upload.storage.before = raising(UNAVAILABLE, on="copy_part", part=16)
    with pytest.raises(StoreUnavailable):
        send(upload, recorder=recorder)
    upload.storage.before = nothing
    upload.flip_bit(at=0)
    upload.source = find(upload)

    send(upload, previous=recorder.created[0])

    assert upload.storage.objects[KEY].content[1:PART_SIZE] == part(1)[1:]
    assert upload.storage.objects[KEY].content == upload.storage.objects[SOURCE].content
