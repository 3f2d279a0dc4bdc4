import contextvars
from datetime import timedelta
from functools import partial
from threading import Barrier, Event, current_thread
from typing import TYPE_CHECKING

import pytest

from pipeline.steps.call_pool import CallPool

if TYPE_CHECKING:
    from collections.abc import Callable

SOON = timedelta(milliseconds=5)
LONG = timedelta(seconds=30)

upload = contextvars.ContextVar[str]("upload")


def no_heartbeat() -> None:
    """Do nothing."""


def ignore(_: object) -> None:
    """Discard a result."""


def test_results_are_passed_on_as_calls_end() -> None:
    results: list[int] = []
    with CallPool[int](
        2, on_result=results.append, heartbeat=no_heartbeat, heartbeat_interval=SOON
    ) as pool:
        for number in range(3):
            pool.start(partial(abs, number))
        pool.drain()

    assert sorted(results) == [0, 1, 2]


def test_calls_run_at_the_same_time() -> None:
    together = Barrier(2)
    with CallPool[int](
        2, on_result=ignore, heartbeat=no_heartbeat, heartbeat_interval=SOON
    ) as pool:
        pool.start(lambda: together.wait(timeout=10))
        pool.start(lambda: together.wait(timeout=10))
        pool.drain()


def test_run_does_not_wait_for_started_calls() -> None:
    proceed = Event()
    with CallPool[bool](
        1, on_result=ignore, heartbeat=no_heartbeat, heartbeat_interval=SOON
    ) as pool:
        pool.start(partial(proceed.wait, timeout=10))
        pool.run(proceed.set)
        pool.drain()


def test_wait_for_room_allows_one_queued_call() -> None:
    proceed = Event()
    results: list[bool] = []

    def release() -> None:
        proceed.set()

    with CallPool[bool](
        2, on_result=results.append, heartbeat=release, heartbeat_interval=SOON
    ) as pool:
        for _ in range(2):
            pool.wait_for_room()
            pool.start(partial(proceed.wait, timeout=10))
        pool.wait_for_room()
        assert not proceed.is_set()
        pool.start(partial(proceed.wait, timeout=10))
        pool.wait_for_room()
        assert proceed.is_set()
        assert results


def test_results_are_collected_during_run() -> None:
    collected = Event()

    def collect(_: bool) -> None:  # noqa: FBT001  # a result has no name
        collected.set()

    with CallPool[bool](
        1, on_result=collect, heartbeat=no_heartbeat, heartbeat_interval=LONG
    ) as pool:
        pool.start(lambda: True)
        assert pool.run(lambda: collected.wait(timeout=10))


@pytest.mark.parametrize("wait", ["drain", "run"])
def test_an_error_of_a_call_is_raised_by_the_waiting_method(wait: str) -> None:
    def fail() -> int:
        raise ZeroDivisionError

    with CallPool[int](
        1, on_result=ignore, heartbeat=no_heartbeat, heartbeat_interval=SOON
    ) as pool:
        pool.start(fail)
        waiting: dict[str, Callable[[], object]] = {
            "drain": pool.drain,
            "run": partial(pool.run, lambda: pool.abandoned.wait(timeout=10)),
        }
        with pytest.raises(ZeroDivisionError):
            waiting[wait]()


def test_results_are_passed_on_although_another_call_failed() -> None:
    results: list[int] = []
    all_done = Event()

    def fail() -> int:
        raise ZeroDivisionError

    def finish() -> int:
        all_done.set()
        return 20

    with CallPool[int](
        1, on_result=results.append, heartbeat=no_heartbeat, heartbeat_interval=SOON
    ) as pool:
        pool.start(fail)
        for number in range(20):
            pool.start(partial(abs, number))
        pool.start(finish)
        assert all_done.wait(timeout=10)
        with pytest.raises(ZeroDivisionError):
            pool.drain()

    assert set(range(20)) <= set(results)


@pytest.mark.parametrize("how", ["run", "start"])
def test_the_heartbeat_is_called_in_this_thread_while_a_call_runs(how: str) -> None:
    beats: list[str] = []
    enough = Event()

    def beat() -> None:
        beats.append(current_thread().name)
        if len(beats) == 3:
            enough.set()

    with CallPool[bool](1, on_result=ignore, heartbeat=beat, heartbeat_interval=SOON) as pool:
        if how == "run":
            assert pool.run(lambda: enough.wait(timeout=10))
        else:
            pool.start(lambda: enough.wait(timeout=10))
            pool.drain()

    assert set(beats) == {current_thread().name}


def test_the_heartbeat_is_not_called_before_its_interval() -> None:
    def beat() -> None:
        pytest.fail("too early")

    with CallPool[None](1, on_result=ignore, heartbeat=beat, heartbeat_interval=LONG) as pool:
        for _ in range(100):
            pool.run(lambda: None)


def test_leaving_the_block_drops_queued_calls_and_waits_for_running_ones() -> None:
    seen: list[str] = []
    first_runs = Event()

    with CallPool[None](
        1, on_result=ignore, heartbeat=no_heartbeat, heartbeat_interval=SOON
    ) as pool:

        def first() -> None:
            first_runs.set()
            if pool.abandoned.wait(timeout=10):
                seen.append("first was abandoned")

        pool.start(first)
        pool.start(partial(seen.append, "second began"))
        assert first_runs.wait(timeout=10)

    assert seen == ["first was abandoned"]


def test_stop_waits_until_every_call_has_ended() -> None:
    both_run = Barrier(3)
    ended: list[bool] = []

    with CallPool[None](
        2, on_result=ignore, heartbeat=no_heartbeat, heartbeat_interval=SOON
    ) as pool:

        def until_abandoned() -> None:
            both_run.wait(timeout=10)
            ended.append(pool.abandoned.wait(timeout=10))

        pool.start(until_abandoned)
        pool.start(until_abandoned)
        both_run.wait(timeout=10)
        pool.stop()

        assert ended == [True, True]


def test_calls_run_in_the_context_of_their_caller() -> None:
    upload.set("id")
    with CallPool[str](
        1, on_result=ignore, heartbeat=no_heartbeat, heartbeat_interval=SOON
    ) as pool:
        assert pool.run(upload.get) == "id"
