import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dev.stack import readiness

NOW = datetime.now(UTC)


def touched(file: Path, *, at: datetime) -> Path:
    file.touch()
    os.utime(file, (at.timestamp(), at.timestamp()))
    return file


def ready(file: Path, *, started: datetime) -> bool:
    async def ask() -> bool:
        return await readiness.file_touched(file)(started)

    return asyncio.run(ask())


def test_a_process_that_never_touched_its_file_is_not_ready(tmp_path: Path) -> None:
    assert not ready(tmp_path / "liveness", started=NOW)


def test_a_process_that_touched_its_file_since_it_started_is_ready(tmp_path: Path) -> None:
    file = touched(tmp_path / "liveness", at=NOW)

    assert ready(file, started=NOW - timedelta(seconds=2))


def test_a_touch_of_its_predecessor_does_not_count(tmp_path: Path) -> None:
    file = touched(tmp_path / "liveness", at=NOW - timedelta(seconds=2))

    assert not ready(file, started=NOW)


def test_a_process_that_stopped_touching_its_file_is_not_ready(tmp_path: Path) -> None:
    file = touched(tmp_path / "liveness", at=NOW - timedelta(seconds=40))

    assert not ready(file, started=NOW - timedelta(seconds=60))
