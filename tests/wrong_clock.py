"""Processes whose clock is wrong, by libfaketime of Debian: they read another time than the machine."""

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from dev.stack.checkout import CHECKOUT

UNPACKED: Final = CHECKOUT / "var" / "libfaketime"
LIBRARY: Final = "usr/lib/*/faketime/libfaketimeMT.so.1"


def settings(shift: timedelta) -> dict[str, str]:
    """Return the environment of a process whose clock is ahead by `shift`, or behind.

    Skips the test where the library is neither installed nor can be downloaded.
    """
    seconds = round(shift.total_seconds())
    return {
        "LD_PRELOAD": str(_library()),
        "FAKETIME": f"{seconds:+d}",
        # Only the wall clock is wrong: a monotonic clock has no right time.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        # The times of files are those of the file server, which may be another machine.
        "NO_FAKE_STAT": "1",
    }


def _library() -> Path:
    for root in (Path("/"), UNPACKED):
        for found in root.glob(LIBRARY):
            return found
    if shutil.which("apt-get") is None:
        pytest.skip("libfaketime is not installed, and there is no apt-get to download it")
    UNPACKED.mkdir(parents=True, exist_ok=True)
    # A download needs no root, unlike an installation.
    downloading = subprocess.run(
        ["apt-get", "download", "libfaketime"],
        cwd=UNPACKED,
        check=False,
        capture_output=True,
        text=True,
    )
    if downloading.returncode != 0:
        pytest.skip(f"libfaketime cannot be downloaded: {downloading.stderr}")
    (package,) = UNPACKED.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, UNPACKED], check=True)
    package.unlink()
    return next(UNPACKED.glob(LIBRARY))
