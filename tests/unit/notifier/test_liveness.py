import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from notifier import liveness
from notifier.liveness import Pulse

pytestmark = pytest.mark.anyio


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


async def run_a_round(file: Path | None, *, alive: liveness.Alive) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await liveness.keep(file, alive=alive)


async def test_a_living_process_touches_its_file(tmp_path: Path) -> None:
    await run_a_round(tmp_path / "alive", alive=yes)
    assert (tmp_path / "alive").exists()


async def test_another_one_does_not(tmp_path: Path) -> None:
    await run_a_round(tmp_path / "alive", alive=no)
    assert not (tmp_path / "alive").exists()


async def test_without_a_file_nothing_is_touched() -> None:
    await run_a_round(None, alive=yes)


def test_a_loop_that_never_turned_has_no_pulse() -> None:
    assert not Pulse().is_fresh


def test_a_pulse_is_fresh_for_half_a_minute() -> None:
    now = 0.0
    pulse = Pulse(clock=lambda: now)
    pulse.beat()
    now = 29.9
    assert pulse.is_fresh
    now = 30.0
    assert not pulse.is_fresh
