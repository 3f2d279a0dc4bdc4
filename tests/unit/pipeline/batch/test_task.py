from datetime import UTC, datetime

import pytest

from pipeline.batch.record import Counts
from pipeline.batch.task import Checkpoint, room_of


def counts(*, waiting: int, started: int) -> Counts:
    return Counts(
        lines=waiting + started + 4,
        rejected=1,
        started=started,
        completed=1,
        failed=1,
        cancelled=1,
    )


@pytest.mark.parametrize(
    ("waiting", "started", "room"),
    [(1000, 0, 100), (1000, 99, 1), (1000, 100, 0), (1000, 101, 0), (5, 0, 5), (0, 0, 0)],
)
def test_a_batch_has_room_for_waiting_lines_below_the_most_open(
    waiting: int, started: int, room: int
) -> None:
    assert room_of(counts(waiting=waiting, started=started), open_max=100) == room


@pytest.mark.parametrize("next_at", [None, datetime(2026, 11, 27, 12, tzinfo=UTC)])
def test_a_checkpoint_is_read_as_it_was_stored(next_at: datetime | None) -> None:
    checkpoint = Checkpoint(after=7, next_at=next_at)

    assert Checkpoint.of(checkpoint.encoded()) == checkpoint


def test_a_batch_without_checkpoint_begins_with_its_first_line() -> None:
    assert Checkpoint.of(None) == Checkpoint(after=0, next_at=None)
