from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import pytest

from dev.bench import sending
from dev.bench.receivers import Sending
from dev.bench.sending import Load, shown
from dev.bench.usage import MIB
from dev.bench.wire import Connection, Content

CONTENT = Content.zeros(4)
NOWHERE = "http://127.0.0.1:1"


@dataclass
class RecordingReceiver:
    """A receiver that records its calls."""

    acked: list[tuple[str, int]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=count)

    def connect(self) -> Connection:
        return Connection(NOWHERE, headers={})

    def begin(self, _: Connection, *, size: int, chunk_size: int) -> Sending:
        return Sending(path="/", id=str(next(self.ids)), size=size, chunk_size=chunk_size)

    def send(self, _: Connection, sending: Sending, *, index: int, content: Content) -> None:
        assert content is CONTENT
        self.acked.append((sending.id, index))

    def end(self, _: Connection, sending: Sending) -> None:
        self.ended.append(sending.id)

    def forget(self, _: Connection, sending: Sending) -> None:
        self.forgotten.append(sending.id)


def test_every_file_is_sent_in_order_and_finished() -> None:
    receiver = RecordingReceiver()

    clocked = sending.file_by_file(receiver, Load(files=3, size=20, chunk_size=4), content=CONTENT)

    for each in clocked.sendings:
        assert [index for id_, index in receiver.acked if id_ == each.id] == [0, 1, 2, 3, 4]
    assert sorted(receiver.ended) == sorted(each.id for each in clocked.sendings)


def test_several_connections_send_every_chunk_once() -> None:
    receiver = RecordingReceiver()

    clocked = sending.over_connections(
        receiver, Load(files=1, size=40, chunk_size=4), content=CONTENT, connections=3
    )

    assert sorted(index for _, index in receiver.acked) == list(range(10))
    assert len(clocked.sendings) == 1


def test_sent_files_are_deleted() -> None:
    receiver = RecordingReceiver()
    clocked = sending.file_by_file(receiver, Load(files=2, size=4, chunk_size=4), content=CONTENT)

    sending.forget(receiver, clocked)

    assert receiver.forgotten == [each.id for each in clocked.sendings]


@pytest.mark.parametrize(
    ("size", "text"),
    [(1024 * MIB, "1 GiB"), (1536 * MIB, "1536 MiB"), (64 * 1024, "64 KiB"), (1000, "1000 B")],
)
def test_sizes_are_printed_without_fractions(size: int, text: str) -> None:
    assert shown(size) == text


def test_a_load_has_a_title() -> None:
    assert str(Load(files=8, size=128 * MIB, chunk_size=MIB)) == (
        "8 files of 128 MiB, chunks of 1 MiB"
    )
