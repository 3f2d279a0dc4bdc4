"""A look that many callers share, also while it hangs."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from gateway.shared_look import KEPT, SharedLook

pytestmark = pytest.mark.anyio

SHORT = timedelta(milliseconds=50)
LONG = timedelta(seconds=20)


class Looks:
    """Looks that end when the test says what they find."""

    def __init__(self) -> None:
        self.found: list[asyncio.Future[str]] = []
        self.now = 100.0

    async def look(self) -> str:
        self.found.append(asyncio.get_running_loop().create_future())
        return await self.found[-1]

    def shared(self, *, timeout: timedelta = LONG) -> SharedLook[str]:
        return SharedLook(self.look, timeout=timeout, monotonic=lambda: self.now)

    def later(self, seconds: float) -> None:
        self.now += seconds


async def steps_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # single steps of the loop
            await asyncio.sleep(0)


async def test_callers_at_the_same_time_share_a_look() -> None:
    looks = Looks()
    shared = looks.shared()
    callers = [asyncio.create_task(shared.ask()) for _ in range(20)]
    await steps_until(lambda: bool(looks.found))
    looks.found[0].set_result("here")
    assert set(await asyncio.gather(*callers)) == {"here"}
    assert len(looks.found) == 1


async def test_callers_within_a_second_share_a_look_and_later_ones_look_again() -> None:
    looks = Looks()
    shared = looks.shared()
    first = asyncio.create_task(shared.ask())
    await steps_until(lambda: bool(looks.found))
    looks.found[0].set_result("here")
    assert await first == "here"
    looks.later(KEPT.total_seconds() - 0.01)
    assert await shared.ask() == "here"
    looks.later(0.01)
    again = asyncio.create_task(shared.ask())
    await steps_until(lambda: len(looks.found) == 2)
    looks.found[1].set_result("gone")
    assert await again == "gone"


async def test_a_caller_does_not_wait_for_a_look_that_hangs() -> None:
    looks = Looks()
    shared = looks.shared(timeout=SHORT)
    async with asyncio.timeout(5):
        assert set(await asyncio.gather(*(shared.ask() for _ in range(20)))) == {None}
        looks.later(60)
        assert await shared.ask() is None
    assert len(looks.found) == 1
    await shared.close()
    assert looks.found[0].cancelled()


async def test_a_cancelled_caller_does_not_end_the_look_of_the_others() -> None:
    looks = Looks()
    shared = looks.shared()
    first, second = (asyncio.create_task(shared.ask()) for _ in range(2))
    await steps_until(lambda: bool(looks.found))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    looks.found[0].set_result("here")
    assert await second == "here"


@pytest.mark.parametrize("steps", range(6))
async def test_overlapping_callers_do_not_read_each_others_look(steps: int) -> None:
    looks = Looks()
    shared = SharedLook(looks.look, timeout=LONG, monotonic=lambda: looks.now, kept=timedelta(0))
    async with asyncio.timeout(5):
        first = asyncio.create_task(shared.ask())
        await steps_until(lambda: bool(looks.found))
        looks.found[0].set_result("first")
        # After some number of steps the look has ended, and `first` is not resumed yet.
        for _ in range(steps):
            await asyncio.sleep(0)
        second = asyncio.create_task(shared.ask())
        assert await first == "first"
        while not second.done():
            for found in looks.found[1:]:
                if not found.done():
                    found.set_result("second")
            await asyncio.sleep(0)
        assert second.result() in {"first", "second"}
