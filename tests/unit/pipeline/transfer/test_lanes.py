from __future__ import annotations

import contextvars
from datetime import timedelta
from functools import partial
from threading import Barrier, Event, current_thread

import pytest

from pipeline.transfer.lanes import Lanes

SOON = timedelta(milliseconds=5)
LONG = timedelta(seconds=30)

upload = contextvars.ContextVar[str]("upload")


def calm() -> None:
    """Beat without a word."""


def test_results_come_out_as_calls_finish() -> None:
    with Lanes[int](2, heartbeat=calm, every=SOON) as lanes:
        for number in range(3):
            lanes.start(partial(abs, number))
        results: list[int] = []
        while lanes.are_busy:
            results += lanes.next_finished()

    assert sorted(results) == [0, 1, 2]


def test_lanes_work_at_the_same_time() -> None:
    together = Barrier(2)
    with Lanes[int](2, heartbeat=calm, every=SOON) as lanes:
        lanes.start(lambda: together.wait(timeout=10))
        lanes.start(lambda: together.wait(timeout=10))
        while lanes.are_busy:
            lanes.next_finished()


@pytest.mark.parametrize(("calls", "are_full"), [(1, False), (2, False), (3, True)])
def test_one_call_more_than_there_are_lanes_may_wait(calls: int, *, are_full: bool) -> None:
    go_on = Event()
    with Lanes[bool](2, heartbeat=calm, every=SOON) as lanes:
        for _ in range(calls):
            lanes.start(partial(go_on.wait, timeout=10))
        assert lanes.are_full is are_full
        go_on.set()


def test_what_a_call_raises_comes_out() -> None:
    def fail() -> int:
        raise ZeroDivisionError

    with Lanes[int](1, heartbeat=calm, every=SOON) as lanes:
        lanes.start(fail)
        with pytest.raises(ZeroDivisionError):
            lanes.next_finished()


@pytest.mark.parametrize("how", ["alone", "among others"])
def test_the_heart_beats_in_this_thread_while_a_call_takes_its_time(how: str) -> None:
    beats: list[str] = []
    enough = Event()

    def beat() -> None:
        beats.append(current_thread().name)
        if len(beats) == 3:
            enough.set()

    with Lanes[bool](1, heartbeat=beat, every=SOON) as lanes:
        if how == "alone":
            assert lanes.run(lambda: enough.wait(timeout=10))
        else:
            lanes.start(lambda: enough.wait(timeout=10))
            assert lanes.next_finished() == [True]

    assert set(beats) == {current_thread().name}


def test_the_heart_does_not_beat_before_it_is_time() -> None:
    def beat() -> None:
        pytest.fail("too early")

    with Lanes[None](1, heartbeat=beat, every=LONG) as lanes:
        for _ in range(100):
            lanes.beat()


def test_leaving_drops_calls_that_did_not_begin_and_sees_the_others_end() -> None:
    seen: list[str] = []
    first_runs = Event()

    with Lanes[None](1, heartbeat=calm, every=SOON) as lanes:

        def first() -> None:
            first_runs.set()
            if lanes.abandoned.wait(timeout=10):
                seen.append("first was told")

        lanes.start(first)
        lanes.start(partial(seen.append, "second began"))
        assert first_runs.wait(timeout=10)

    assert seen == ["first was told"]


def test_settled_lanes_have_stopped() -> None:
    both_run = Barrier(3)
    ended: list[bool] = []

    with Lanes[None](2, heartbeat=calm, every=SOON) as lanes:

        def until_told() -> None:
            both_run.wait(timeout=10)
            ended.append(lanes.abandoned.wait(timeout=10))

        lanes.start(until_told)
        lanes.start(until_told)
        both_run.wait(timeout=10)
        lanes.settle()

        assert ended == [True, True]


def test_calls_see_the_context_they_were_started_in() -> None:
    upload.set("the one at hand")
    with Lanes[str](1, heartbeat=calm, every=SOON) as lanes:
        assert lanes.run(upload.get) == "the one at hand"
