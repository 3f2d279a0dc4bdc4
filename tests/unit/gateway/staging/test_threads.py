import asyncio
from collections.abc import Iterator
from threading import Event

import pytest

from gateway.staging.serial_executor import CALLS_IN_A_ROW, Lane, Threads

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads("test", count=2)
    yield threads
    threads.close()


async def test_calls_of_a_lane_follow_each_other_in_the_order_asked_for(threads: Threads) -> None:
    lane = Lane(threads)
    under_way: list[int] = []
    seen: list[int] = []

    def call(number: int) -> int:
        under_way.append(number)
        seen.append(number)
        assert under_way == [number], "two calls of a lane at once"
        under_way.remove(number)
        return number

    results = await asyncio.gather(*(lane.run(call, number) for number in range(200)))

    assert results == seen == list(range(200))


async def test_the_next_call_begins_without_the_event_loop(threads: Threads) -> None:
    lane = Lane(threads)
    second_began = Event()
    loop_may_go_on = Event()

    def first() -> None:
        assert loop_may_go_on.wait(20)

    asking = [asyncio.create_task(lane.run(call)) for call in (first, second_began.set)]
    await asyncio.sleep(0)
    loop_may_go_on.set()

    assert second_began.wait(20), "the event loop stands still here"
    await asyncio.gather(*asking)


async def test_after_a_failure_no_call_is_begun_and_all_say_why(threads: Threads) -> None:
    lane = Lane(threads)
    begun: list[str] = []

    def fail() -> None:
        raise OSError("the disk")

    results = await asyncio.gather(
        lane.run(begun.append, "before"),
        lane.run(fail),
        lane.run(begun.append, "after"),
        return_exceptions=True,
    )

    assert begun == ["before"]
    assert [str(result) for result in results] == ["None", "the disk", "the disk"]


async def test_a_cancelled_caller_waits_for_the_call_to_end(threads: Threads) -> None:
    lane = Lane(threads)
    has_begun, may_end, has_ended = Event(), Event(), Event()

    def call() -> None:
        has_begun.set()
        assert may_end.wait(20)
        has_ended.set()

    calling = asyncio.create_task(lane.run(call))
    await threads.run(has_begun.wait)
    calling.cancel()
    await asyncio.sleep(0)
    calling.cancel()
    assert not calling.done()
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await calling
    assert has_ended.is_set()


async def test_a_lane_that_is_always_busy_lets_others_have_a_turn() -> None:
    threads = Threads("one", count=1)
    lane, other = Lane(threads), Lane(threads)
    order: list[str] = []
    gate = Event()

    opening = asyncio.create_task(lane.run(gate.wait, 20))
    asked = [asyncio.create_task(lane.run(order.append, "busy")) for _ in range(3 * CALLS_IN_A_ROW)]
    asked.append(asyncio.create_task(other.run(order.append, "other")))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(opening, *asked)
    threads.close()

    assert order.index("other") == CALLS_IN_A_ROW - 1


async def test_the_last_call_of_a_lane_comes_after_the_others_whatever_became_of_them(
    threads: Threads,
) -> None:
    lane = Lane(threads)
    begun: list[str] = []
    gate = Event()

    opening = asyncio.create_task(lane.run(gate.wait, 20))
    await asyncio.sleep(0)
    given_up = lane.ask(begun.append, "given up")
    given_up.cancel()
    after = lane.ask(begun.append, "after a gap")
    ending = lane.end(lambda: begun.append("end"))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(opening, ending)

    assert begun == ["end"]
    assert after.exception() is not None


async def test_what_is_in_line_is_run_also_while_the_pool_closes(threads: Threads) -> None:
    lane = Lane(threads)
    gate = Event()
    opening = asyncio.create_task(lane.run(gate.wait, 20))
    await asyncio.sleep(0)
    asked = [lane.ask(int) for _ in range(3 * CALLS_IN_A_ROW)]

    closing = asyncio.create_task(asyncio.to_thread(threads.close))
    gate.set()
    await asyncio.gather(opening, closing, *asked)


async def test_nothing_is_left_in_line_where_the_pool_is_closed(threads: Threads) -> None:
    lane = Lane(threads)
    threads.close()

    for _ in range(2):
        with pytest.raises(RuntimeError):
            lane.ask(int)
        with pytest.raises(RuntimeError):
            lane.end(lambda: None)
