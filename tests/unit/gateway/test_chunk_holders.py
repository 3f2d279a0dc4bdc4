import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chunk_holders import ChunkHolder, ChunkHolders, GaveWay
from schemas.ids import UploadId

pytestmark = pytest.mark.anyio

UPLOAD = UploadId(UUID(int=1))
KEEP_RATE = 1000
ENOUGH = 2 * KEEP_RATE
"""Bytes within the window of 2 s with which a holder keeps its chunk."""


class Clock:
    """Time of the event loop that the test advances; all timers follow it."""

    def __init__(self) -> None:
        self.now = 1000.0

    async def advance(self, seconds: float) -> None:
        self.now += seconds
        # Some turns of the loop, for the timers that are due and the tasks that they wake.
        for _ in range(10):
            await asyncio.sleep(0)


class Receiving:
    """A holder in a task that receives the pieces that the test sends."""

    def __init__(self, holder: ChunkHolder) -> None:
        self._sent = asyncio.Queue[bytes | None]()
        self.received = 0
        self._task = asyncio.create_task(self._receive(holder))

    @property
    def gave_way(self) -> bool:
        return self._task.done() and isinstance(self._task.exception(), GaveWay)

    @property
    def ended_well(self) -> bool:
        return self._task.done() and self._task.exception() is None

    def send(self, count: int) -> None:
        self._sent.put_nowait(bytes(count))

    def end(self) -> None:
        self._sent.put_nowait(None)

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError, GaveWay):
            await self._task

    async def _body(self) -> AsyncIterator[bytes]:
        while (piece := await self._sent.get()) is not None:
            yield piece

    async def _receive(self, holder: ChunkHolder) -> None:
        async for piece in holder.pieces(self._body()):
            self.received += len(piece)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock.now)
    return clock


@pytest.fixture
async def holder(clock: Clock) -> ChunkHolder:  # noqa: ARG001  # the holder reads this clock
    return ChunkHolder(keep_rate=KEEP_RATE)


@pytest.fixture
async def receiving(holder: ChunkHolder, clock: Clock) -> AsyncIterator[Receiving]:
    receiving = Receiving(holder)
    await clock.advance(0)
    yield receiving
    await receiving.close()


async def test_a_holder_that_nobody_asks_receives_as_slowly_as_it_likes(
    receiving: Receiving, clock: Clock
) -> None:
    await clock.advance(600)
    receiving.send(1)
    receiving.end()
    await clock.advance(600)

    assert receiving.ended_well
    assert receiving.received == 1


async def test_a_silent_holder_gives_way_at_once(
    holder: ChunkHolder, receiving: Receiving, clock: Clock
) -> None:
    receiving.send(1_000_000)
    await clock.advance(0)
    await clock.advance(5)

    holder.ask()
    await clock.advance(0)

    assert receiving.gave_way


async def test_a_young_silent_holder_gives_way_when_it_is_two_seconds_old(
    holder: ChunkHolder, receiving: Receiving, clock: Clock
) -> None:
    holder.ask()
    await clock.advance(1)
    holder.ask()
    await clock.advance(0.9)
    assert not receiving.gave_way

    await clock.advance(0.1)
    assert receiving.gave_way


async def test_a_question_counts_for_a_short_time_only(
    holder: ChunkHolder, receiving: Receiving, clock: Clock
) -> None:
    holder.ask()
    await clock.advance(600)
    assert not receiving.gave_way

    receiving.send(1)
    await clock.advance(600)
    assert not receiving.gave_way


async def test_a_trickling_holder_gives_way(
    holder: ChunkHolder, receiving: Receiving, clock: Clock
) -> None:
    for _ in range(25):
        receiving.send(1)
        holder.ask()
        await clock.advance(0.1)

    assert receiving.gave_way
    assert receiving.received <= 20


async def test_a_holder_at_the_rate_keeps_the_chunk(
    holder: ChunkHolder, receiving: Receiving, clock: Clock
) -> None:
    for _ in range(200):
        holder.ask()
        receiving.send(KEEP_RATE // 10 + 20)
        await clock.advance(0.1)
    assert not receiving.gave_way

    receiving.end()
    await clock.advance(0)
    assert receiving.ended_well


async def test_a_holder_below_the_rate_gives_way(
    holder: ChunkHolder, receiving: Receiving, clock: Clock
) -> None:
    for _ in range(40):
        holder.ask()
        receiving.send(KEEP_RATE // 10 - 20)
        await clock.advance(0.1)

    assert receiving.gave_way


async def test_a_holder_that_becomes_silent_gives_way_within_two_seconds(
    holder: ChunkHolder, receiving: Receiving, clock: Clock
) -> None:
    await clock.advance(10)
    receiving.send(ENOUGH)
    await clock.advance(0)
    holder.ask()
    await clock.advance(1)
    holder.ask()
    await clock.advance(0.95)
    assert not receiving.gave_way

    await clock.advance(0.1)
    assert receiving.gave_way


async def test_the_time_of_a_slow_disk_does_not_count(holder: ChunkHolder, clock: Clock) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x"

    received = 0
    async for piece in holder.pieces(body()):
        received += len(piece)
        holder.ask()
        await clock.advance(10)

    assert received == 5


@given(arrivals=st.lists(st.sampled_from([0, 1, 40, 60, 100, 150]), min_size=60, max_size=90))
@settings(max_examples=60)
async def test_a_holder_that_is_asked_keeps_the_chunk_exactly_while_its_rate_is_good(
    arrivals: list[int],
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock, step, tolerance = Clock(), 0.05, 3
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock.now)
        holder = ChunkHolder(keep_rate=KEEP_RATE)
        receiving = Receiving(holder)
        await clock.advance(0)
        window = round(2 / step)
        try:
            for number, count in enumerate(arrivals, start=1):
                if count:
                    receiving.send(count)
                    await clock.advance(0)
                holder.ask()
                await clock.advance(step)
                recent = arrivals[max(0, number - window + tolerance) : number]
                if receiving.gave_way:
                    assert sum(recent) < ENOUGH
                    break
                if number > window + tolerance:
                    assert sum(arrivals[number - window - tolerance : number]) >= ENOUGH
        finally:
            await receiving.close()


def holders_with(sent: list[str]) -> ChunkHolders:
    async def send(payload: str) -> None:
        sent.append(payload)

    return ChunkHolders(keep_rate=KEEP_RATE, send=send)


def silent(holder: ChunkHolder) -> Callable[[], bool]:
    receiving = Receiving(holder)
    return lambda: receiving.gave_way


async def test_a_holder_in_this_process_is_asked_without_the_database(clock: Clock) -> None:
    sent: list[str] = []
    holders = holders_with(sent)
    with holders.holding(UPLOAD, 0) as holder, holders.holding(UPLOAD, 1) as neighbour:
        gave_way, neighbour_gave_way = silent(holder), silent(neighbour)
        await clock.advance(0)
        await clock.advance(3)

        await holders.ask_everywhere(UPLOAD, 0)
        await clock.advance(0)

        assert gave_way()
        assert not neighbour_gave_way()
    assert sent == []


async def test_a_holder_in_another_process_is_asked_through_the_database(clock: Clock) -> None:
    sent: list[str] = []
    asking, holding = holders_with(sent), holders_with([])
    with holding.holding(UPLOAD, 0) as holder:
        gave_way = silent(holder)
        await clock.advance(0)
        await clock.advance(3)

        await asking.ask_everywhere(UPLOAD, 0)
        holding.notify(sent[0])
        await clock.advance(0)

        assert gave_way()


async def test_a_process_ignores_its_own_questions_and_foreign_payloads(clock: Clock) -> None:
    sent: list[str] = []
    holders = holders_with(sent)
    await holders.ask_everywhere(UPLOAD, 0)
    with holders.holding(UPLOAD, 0) as holder:
        gave_way = silent(holder)
        await clock.advance(0)
        await clock.advance(3)

        for payload in (sent[0], None, "", "anything", f"x {UPLOAD}/1"):
            holders.notify(payload)
        await clock.advance(0)

        assert not gave_way()


async def test_a_holder_that_has_ended_is_not_asked() -> None:
    sent: list[str] = []
    holders = holders_with(sent)
    with holders.holding(UPLOAD, 0):
        pass

    assert not holders.ask(UPLOAD, 0)
    await holders.ask_everywhere(UPLOAD, 0)
    assert len(sent) == 1
