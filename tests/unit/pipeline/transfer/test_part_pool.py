import contextvars
from datetime import timedelta
from functools import partial
from threading import Barrier, Event, current_thread
from typing import TYPE_CHECKING

import pytest

from pipeline.transfer.part_pool import PartUploadPool

if TYPE_CHECKING:
    from collections.abc import Callable

SOON = timedelta(milliseconds=5)
LONG = timedelta(seconds=30)

upload = contextvars.ContextVar[str]("upload")


def calm() -> None:
    """Beat without a word."""


def ignore(_: object) -> None:
    """Take a result."""


def test_results_are_passed_on_as_calls_end() -> None:
    results: list[int] = []
    with PartUploadPool[int](
        2, on_result=results.append, heartbeat=calm, heartbeat_interval=SOON
    ) as lanes:
        for number in range(3):
            lanes.start(partial(abs, number))
        lanes.drain()

    assert sorted(results) == [0, 1, 2]


def test_calls_run_at_the_same_time() -> None:
    together = Barrier(2)
    with PartUploadPool[int](2, on_result=ignore, heartbeat=calm, heartbeat_interval=SOON) as lanes:
        lanes.start(lambda: together.wait(timeout=10))
        lanes.start(lambda: together.wait(timeout=10))
        lanes.drain()


def test_run_does_not_wait_for_started_calls() -> None:
    go_on = Event()
    with PartUploadPool[bool](
        1, on_result=ignore, heartbeat=calm, heartbeat_interval=SOON
    ) as lanes:
        lanes.start(partial(go_on.wait, timeout=10))
        lanes.run(go_on.set)
        lanes.drain()


def test_wait_for_room_allows_one_queued_call() -> None:
    go_on = Event()
    results: list[bool] = []

    def let_go() -> None:
        go_on.set()

    with PartUploadPool[bool](
        2, on_result=results.append, heartbeat=let_go, heartbeat_interval=SOON
    ) as lanes:
        for _ in range(2):
            lanes.wait_for_room()
            lanes.start(partial(go_on.wait, timeout=10))
        lanes.wait_for_room()
        assert not go_on.is_set()
        lanes.start(partial(go_on.wait, timeout=10))
        lanes.wait_for_room()
        assert go_on.is_set()
        assert results


def test_results_are_collected_during_run() -> None:
    collected = Event()

    def collect(_: bool) -> None:  # noqa: FBT001  # a result has no name
        collected.set()

    with PartUploadPool[bool](
        1, on_result=collect, heartbeat=calm, heartbeat_interval=LONG
    ) as lanes:
        lanes.start(lambda: True)
        assert lanes.run(lambda: collected.wait(timeout=10))


@pytest.mark.parametrize("wait", ["drain", "run"])
def test_an_error_of_a_call_is_raised_by_the_waiting_method(wait: str) -> None:
    def fail() -> int:
        raise ZeroDivisionError

    with PartUploadPool[int](1, on_result=ignore, heartbeat=calm, heartbeat_interval=SOON) as lanes:
        lanes.start(fail)
        waiting: dict[str, Callable[[], object]] = {
            "drain": lanes.drain,
            "run": partial(lanes.run, lambda: lanes.abandoned.wait(timeout=10)),
        }
        with pytest.raises(ZeroDivisionError):
            waiting[wait]()


def test_results_count_although_another_call_failed() -> None:
    results: list[int] = []
    all_done = Event()

    def fail() -> int:
        raise ZeroDivisionError

    def tell() -> int:
        all_done.set()
        return 20

    with PartUploadPool[int](
        1, on_result=results.append, heartbeat=calm, heartbeat_interval=SOON
    ) as lanes:
        lanes.start(fail)
        for number in range(20):
            lanes.start(partial(abs, number))
        lanes.start(tell)
        assert all_done.wait(timeout=10)
        with pytest.raises(ZeroDivisionError):
            lanes.drain()

    assert set(range(20)) <= set(results)


@pytest.mark.parametrize("how", ["aside", "in a lane"])
def test_the_heartbeat_is_called_in_this_thread_while_a_call_runs(how: str) -> None:
    beats: list[str] = []
    enough = Event()

    def beat() -> None:
        beats.append(current_thread().name)
        if len(beats) == 3:
            enough.set()

    with PartUploadPool[bool](
        1, on_result=ignore, heartbeat=beat, heartbeat_interval=SOON
    ) as lanes:
        if how == "aside":
            assert lanes.run(lambda: enough.wait(timeout=10))
        else:
            lanes.start(lambda: enough.wait(timeout=10))
            lanes.drain()

    assert set(beats) == {current_thread().name}


def test_the_heartbeat_is_not_called_before_its_interval() -> None:
    def beat() -> None:
        pytest.fail("too early")

    with PartUploadPool[None](
        1, on_result=ignore, heartbeat=beat, heartbeat_interval=LONG
    ) as lanes:
        for _ in range(100):
            lanes.run(lambda: None)


def test_leaving_the_block_drops_queued_calls_and_waits_for_running_ones() -> None:
    seen: list[str] = []
    first_runs = Event()

    with PartUploadPool[None](
        1, on_result=ignore, heartbeat=calm, heartbeat_interval=SOON
    ) as lanes:

        def first() -> None:
            first_runs.set()
            if lanes.abandoned.wait(timeout=10):
                seen.append("first was told")

        lanes.start(first)
        lanes.start(partial(seen.append, "second began"))
        assert first_runs.wait(timeout=10)

    assert seen == ["first was told"]


def test_stop_waits_until_every_call_has_ended() -> None:
    both_run = Barrier(3)
    ended: list[bool] = []

    with PartUploadPool[None](
        2, on_result=ignore, heartbeat=calm, heartbeat_interval=SOON
    ) as lanes:

        def until_told() -> None:
            both_run.wait(timeout=10)
            ended.append(lanes.abandoned.wait(timeout=10))

        lanes.start(until_told)
        lanes.start(until_told)
        both_run.wait(timeout=10)
        lanes.stop()

        assert ended == [True, True]


def test_calls_run_in_the_context_of_their_caller() -> None:
    upload.set("the one at hand")
    with PartUploadPool[str](1, on_result=ignore, heartbeat=calm, heartbeat_interval=SOON) as lanes:
        assert lanes.run(upload.get) == "the one at hand"
