from datetime import timedelta

from notifier.delivery.slots import RECEIVER_MAX, SLOW_REMEMBERED, Receiver, Slots

QUICK = timedelta(milliseconds=50)
TIMED_OUT = timedelta(seconds=20)

ONE, ANOTHER = Receiver("one"), Receiver("another")


def receivers(count: int) -> list[Receiver]:
    return [Receiver(f"receiver-{number}") for number in range(count)]


def mark_slow(slots: Slots, *slow: Receiver) -> None:
    for receiver in slow:
        assert slots.take(receiver)
        slots.release(receiver, duration=TIMED_OUT)


def test_the_number_of_slots_is_limited() -> None:
    slots = Slots(3)
    assert [slots.take(receiver) for receiver in receivers(4)] == [True, True, True, False]
    assert slots.free == 0


def test_one_receiver_cannot_take_all_slots() -> None:
    slots = Slots(50)
    taken = sum(slots.take(ONE) for _ in range(50))
    assert taken == RECEIVER_MAX
    assert slots.closed == {ONE}
    assert slots.take(ANOTHER)


def test_a_released_slot_can_be_taken_again() -> None:
    slots = Slots(1)
    assert slots.take(ONE)
    slots.release(ONE, duration=QUICK)
    assert slots.free == 1
    assert slots.closed == set()
    assert slots.take(ANOTHER)


def test_slow_receivers_share_half_of_the_slots() -> None:
    slots = Slots(8)
    slow = receivers(8)
    mark_slow(slots, *slow)
    assert [slots.take(receiver) for receiver in slow] == [True] * 4 + [False] * 4
    assert set(slow) <= slots.closed
    assert all(slots.take(ONE) for _ in range(4))


def test_an_unknown_receiver_is_not_slow() -> None:
    slots = Slots(4)
    mark_slow(slots, *receivers(2))
    assert all(slots.take(receiver) for receiver in receivers(2))
    assert slots.take(ONE)


def test_a_quick_attempt_unmarks_a_slow_receiver() -> None:
    slots = Slots(4)
    mark_slow(slots, ONE)
    assert slots.take(ONE)
    slots.release(ONE, duration=QUICK)
    assert all(slots.take(ONE) for _ in range(4))


def test_a_single_slot_serves_slow_receivers_too() -> None:
    slots = Slots(1)
    mark_slow(slots, ONE)
    assert slots.take(ONE)


def test_the_number_of_remembered_slow_receivers_is_limited() -> None:
    slots = Slots(2)
    mark_slow(slots, *receivers(SLOW_REMEMBERED + 5))
    assert slots.take(Receiver(f"receiver-{SLOW_REMEMBERED}"))
    assert len(slots.closed) == SLOW_REMEMBERED


def test_a_slot_taken_in_a_copy_is_not_taken_in_the_original() -> None:
    slots = Slots(2)
    assert slots.take(ONE)
    draft = slots.copy()
    assert draft.take(ONE)
    assert (draft.free, slots.free) == (0, 1)
