"""Unit tests open no socket and start no process; a test that needs one is an integration test."""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

UNIT = Path(__file__).parent
FORBIDDEN = {
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
}


class Guard:
    """Refuses sockets and processes while it is active, in every thread."""

    def __init__(self) -> None:
        self.is_active = False
        # An audit hook stays for the life of the interpreter.
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[object, ...]) -> None:
        if self.is_active and event in FORBIDDEN:
            raise AssertionError(f"{event} in a unit test: {args}")


GUARD = Guard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Guard each unit test and its fixtures; the hook sees the tests of other tiers too."""
    GUARD.is_active = item.path.is_relative_to(UNIT)
    try:
        return (yield)
    finally:
        GUARD.is_active = False
