import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from notifier import liveness
from notifier.liveness import Pulse


async def keep_for_a_moment(file: Path | None, *, is_alive: bool) -> None:
    async def alive() -> bool:
        return is_alive

    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await liveness.keep(file, alive=alive)


@pytest.mark.anyio
@pytest.mark.parametrize("is_alive", [True, False])
async def test_a_process_touches_its_file_only_while_it_works(
    tmp_path: Path, *, is_alive: bool
) -> None:
    await keep_for_a_moment(tmp_path / "alive", is_alive=is_alive)
    assert (tmp_path / "alive").exists() == is_alive


@pytest.mark.anyio
async def test_the_file_is_optional() -> None:
    await keep_for_a_moment(None, is_alive=True)


def test_a_loop_that_never_started_a_round_has_no_fresh_pulse() -> None:
    assert not Pulse().is_fresh


def test_a_pulse_is_fresh_for_half_a_minute() -> None:
    now = 0.0
    pulse = Pulse(clock=lambda: now)
    pulse.beat()
    now = 29.9
    assert pulse.is_fresh
    now = 30.0
    assert not pulse.is_fresh
