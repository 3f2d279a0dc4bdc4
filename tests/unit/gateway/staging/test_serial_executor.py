import asyncio
from collections.abc import Iterator
from threading import Event

import pytest

from gateway.staging.serial_executor import CALLS_IN_A_ROW, SerialExecutor, Threads

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads("test", count=2)
    yield threads
    threads.close()


async def test_calls_run_one_after_another_in_order(threads: Threads) -> None:
    executor = SerialExecutor(threads)
    under_way: list[int] = []
    seen: list[int] = []

    def call(number: int) -> int:
        under_way.append(number)
        seen.append(number)
        assert under_way == [number], "two calls at once"
        under_way.remove(number)
        return number

    results = await asyncio.gather(*(executor.run(call, number) for number in range(200)))

    assert results == seen == list(range(200))


async def test_the_next_call_starts_without_the_event_loop(threads: Threads) -> None:
    executor = SerialExecutor(threads)
    second_began = Event()
    loop_may_go_on = Event()

    def first() -> None:
        assert loop_may_go_on.wait(20)

    running = [asyncio.create_task(executor.run(call)) for call in (first, second_began.set)]
    await asyncio.sleep(0)
    loop_may_go_on.set()

    assert second_began.wait(20), "the event loop is blocked here"
    await asyncio.gather(*running)


async def test_later_calls_fail_with_the_error_of_a_failed_call(threads: Threads) -> None:
    executor = SerialExecutor(threads)
    called: list[str] = []

    def fail() -> None:
        raise OSError("the disk")

    results = await asyncio.gather(
        executor.run(called.append, "before"),
        executor.run(fail),
        executor.run(called.append, "after"),
        return_exceptions=True,
    )

    assert called == ["before"]
    assert [str(result) for result in results] == ["None", "the disk", "the disk"]


async def test_a_cancelled_caller_waits_for_the_call_to_end(threads: Threads) -> None:
    executor = SerialExecutor(threads)
    has_begun, may_end, has_ended = Event(), Event(), Event()

    def call() -> None:
        has_begun.set()
        assert may_end.wait(20)
        has_ended.set()

    calling = asyncio.create_task(executor.run(call))
    await threads.run(has_begun.wait)
    calling.cancel()
    await asyncio.sleep(0)
    calling.cancel()
    assert not calling.done()
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await calling
    assert has_ended.is_set()


async def test_a_busy_executor_lets_another_executor_run() -> None:
    threads = Threads("one", count=1)
    executor, other = SerialExecutor(threads), SerialExecutor(threads)
    order: list[str] = []
    gate = Event()

    opening = asyncio.create_task(executor.run(gate.wait, 20))
    submitted = [
        asyncio.create_task(executor.run(order.append, "busy")) for _ in range(3 * CALLS_IN_A_ROW)
    ]
    submitted.append(asyncio.create_task(other.run(order.append, "other")))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(opening, *submitted)
    threads.close()

    assert order.index("other") == CALLS_IN_A_ROW - 1


async def test_a_call_can_run_even_after_a_failure(
    threads: Threads,
) -> None:
    executor = SerialExecutor(threads)
    called: list[str] = []
    gate = Event()

    opening = asyncio.create_task(executor.run(gate.wait, 20))
    await asyncio.sleep(0)
    cancelled = executor.submit(called.append, "cancelled")
    cancelled.cancel()
    after = executor.submit(called.append, "after a gap")
    ending = executor.submit(lambda: called.append("end"), even_after_failure=True)
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(opening, ending)

    assert called == ["end"]
    assert after.exception() is not None


async def test_queued_calls_run_while_the_threads_close(threads: Threads) -> None:
    executor = SerialExecutor(threads)
    gate = Event()
    opening = asyncio.create_task(executor.run(gate.wait, 20))
    await asyncio.sleep(0)
    submitted = [executor.submit(int) for _ in range(3 * CALLS_IN_A_ROW)]

    closing = asyncio.create_task(asyncio.to_thread(threads.close))
    gate.set()
    await asyncio.gather(opening, closing, *submitted)


async def test_closed_threads_accept_no_call(threads: Threads) -> None:
    executor = SerialExecutor(threads)
    threads.close()

    for _ in range(2):
        with pytest.raises(RuntimeError):
            executor.submit(int)
        with pytest.raises(RuntimeError):
            executor.submit(lambda: None, even_after_failure=True)
