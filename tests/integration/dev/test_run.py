"""`make run`: one service, restarted when its code changes."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dev.stack.checkout import CHECKOUT

RUNNER = """
import sys
from datetime import timedelta
from pathlib import Path
from dev import run
from dev.stack.services import Readiness, Service

directory = Path(sys.argv[1])
service = Service(
    name="example",
    command=("python", "-u", str(directory / "code" / "example.py")),
    readiness=Readiness.LIVENESS_FILE,
    stop_grace=timedelta(seconds=1),
)
run.run(service, state_dir=directory, watched=[directory / "code"])
"""
SERVICE = """
import os, time
print("version {version} with", os.environ["STAGING_DIR"])
while {running}:
    time.sleep(0.1)
"""


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_changed_file_restarts_the_service_even_after_it_failed(tmp_path: Path) -> None:
    (tmp_path / "dev.env").write_text("STAGING_DIR=/staging\n")
    code = tmp_path / "code" / "example.py"
    code.parent.mkdir()
    code.write_text(SERVICE.format(version=1, running=True))
    log = tmp_path / "log"
    with log.open("wb") as output:
        runner = subprocess.Popen(
            [sys.executable, "-c", RUNNER, tmp_path], cwd=CHECKOUT, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: "version 1 with /staging" in log.read_text())
        code.write_text(SERVICE.format(version=2, running=False))
        wait_until(lambda: "version 2" in log.read_text())
        wait_until(lambda: "ended with exit code 0" in log.read_text())
        code.write_text(SERVICE.format(version=3, running=True))
        wait_until(lambda: "version 3" in log.read_text())

        runner.send_signal(signal.SIGTERM)

        assert runner.wait(20) == 0
    finally:
        runner.kill()
        runner.wait()
