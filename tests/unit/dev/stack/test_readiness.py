import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dev.stack import readiness


def touched(file: Path, *, ago: timedelta) -> Path:
    file.touch()
    at = (datetime.now(UTC) - ago).timestamp()
    os.utime(file, (at, at))
    return file


def ready(file: Path, *, started_ago: timedelta) -> bool:
    async def is_ready() -> bool:
        return await readiness.file_touched(file)(datetime.now(UTC) - started_ago)

    return asyncio.run(is_ready())


def test_a_process_that_never_touched_its_file_is_not_ready(tmp_path: Path) -> None:
    assert not ready(tmp_path / "liveness", started_ago=timedelta())


def test_a_process_that_touched_its_file_since_its_start_is_ready(tmp_path: Path) -> None:
    file = touched(tmp_path / "liveness", ago=timedelta())

    assert ready(file, started_ago=timedelta(seconds=2))


def test_a_touch_by_the_previous_process_does_not_count(tmp_path: Path) -> None:
    file = touched(tmp_path / "liveness", ago=timedelta(seconds=2))

    assert not ready(file, started_ago=timedelta())


def test_a_process_that_stopped_touching_its_file_is_not_ready(tmp_path: Path) -> None:
    file = touched(tmp_path / "liveness", ago=timedelta(seconds=40))

    assert not ready(file, started_ago=timedelta(seconds=60))
