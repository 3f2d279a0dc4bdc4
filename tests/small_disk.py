"""A file system of a few MiB, for tests that fill it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(directory: Path, *, mib: int) -> Iterator[Path]:
    """Mount a small disk; skips the test where this is not possible."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    directory.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", directory],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounting.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounting.stderr}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
