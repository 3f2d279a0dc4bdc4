"""Unit tests open no socket and start no process; a test that needs one is an integration test."""

import sys
from collections.abc import Iterator

import pytest

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
_running = False


def _refuse(event: str, args: tuple[object, ...]) -> None:
    if _running and event in FORBIDDEN:
        raise AssertionError(f"{event} in a unit test: {args}")


# An audit hook cannot be removed, so it is added once and switched on for each test.
sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def _neither_sockets_nor_processes() -> Iterator[None]:
    global _running  # noqa: PLW0603  # the hook belongs to the interpreter
    _running = True
    yield
    _running = False
