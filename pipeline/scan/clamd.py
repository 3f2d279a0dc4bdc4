"""A client of clamd: PING, and INSTREAM for one file.

Every wait has an end, and at most `ANSWER_MAX` bytes of an answer are read: another program may
listen at the address.
"""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Final, TypeAlias

from pipeline.scan.errors import ScanFailed, ScannerAway
from pipeline.scan.verdict import ANSWER_MAX, NotClamd, Verdict, is_pong, verdict_of

Address: TypeAlias = tuple[str, int] | Path
"""Host and port, or a Unix socket."""

GREETING_TIMEOUT: Final = timedelta(seconds=10)
"""Longest time to connect, and to answer PING: what clamd answers at once unless it loads signatures."""

_LOOK_EVERY: Final = timedelta(milliseconds=500)
"""A cancelled scan ends within this time."""

_BROKEN: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Clamd:
    """clamd at an address.

    Args:
        address: where it listens.
        timeout: longest time in which clamd takes no byte, and longest wait for the verdict.
    """

    def __init__(self, address: Address, *, timeout: timedelta) -> None:
        self._address = address
        self._timeout = timeout

    def scan(self, blocks: Iterator[bytes], *, abandoned: Event) -> Verdict:
        """Send a file and return the verdict.

        Args:
            blocks: the bytes of the file; read only while clamd takes them.
            abandoned: once it is set, the scan ends with `ScanFailed`.

        Raises:
            ScannerAway: clamd cannot be reached, or what answers is not clamd.
            ScanFailed: clamd answered PING, and then ended the scan without a verdict or not in time.
        """
        self._greet(abandoned=abandoned)
        with self._connected(timeout=self._timeout, abandoned=abandoned) as connection:
            try:
                answer = self._answer_to(connection, blocks)
            except _Silence as silence:
                raise ScanFailed(str(silence)) from silence
            except OSError as error:
                raise ScanFailed(f"the connection broke ({type(error).__name__})") from error
        try:
            return verdict_of(answer)
        except NotClamd as other:
            raise ScannerAway(f"the scanner does not answer as clamd does: {other}") from other

    @staticmethod
    def _answer_to(connection: "_Connection", blocks: Iterator[bytes]) -> bytes:
        is_asked = connection.send(b"zINSTREAM\0")
        while is_asked and (block := next(blocks, None)) is not None:
            # An empty piece would end the stream.
            is_asked = not block or connection.send(len(block).to_bytes(4, "big") + block)
        if is_asked:
            connection.send((0).to_bytes(4, "big"))
        return connection.answer()

    def _greet(self, *, abandoned: Event) -> None:
        """Check that clamd answers, so that a scan without a verdict is not that of a dead scanner.

        Raises:
            ScannerAway: it does not.
        """
        with self._connected(timeout=GREETING_TIMEOUT, abandoned=abandoned) as connection:
            try:
                connection.send(b"zPING\0")
                answer = connection.answer()
            except (_Silence, OSError) as error:
                raise ScannerAway(f"clamd does not answer PING ({type(error).__name__})") from error
        if not is_pong(answer):
            raise ScannerAway("what listens at the address of the scanner is not clamd")

    @contextmanager
    def _connected(self, *, timeout: timedelta, abandoned: Event) -> Iterator["_Connection"]:
        try:
            opened = _connect(self._address)
        except OSError as error:
            raise ScannerAway(f"clamd cannot be reached ({type(error).__name__})") from error
        with closing(opened):
            opened.settimeout(0)  # every wait is a poll
            yield _Connection(opened, timeout=timeout, abandoned=abandoned)


class _Silence(Exception):
    """The other side does nothing for too long, or nobody waits for it any more."""


class _Connection:
    def __init__(self, opened: socket.socket, *, timeout: timedelta, abandoned: Event) -> None:
        self._socket = opened
        self._timeout = timeout.total_seconds()
        self._abandoned = abandoned

    def send(self, content: bytes) -> bool:
        """Send bytes; return False, and leave the rest, once there is an answer or an end to read.

        Raises:
            _Silence: the other side takes no byte.
        """
        left = memoryview(content)
        while left:
            happened = self._wait(select.POLLIN | select.POLLOUT)
            if happened & (select.POLLIN | _BROKEN):
                return False
            left = left[self._socket.send(left) :]
        return True

    def answer(self) -> bytes:
        """Return what arrives up to and with a NUL, or `ANSWER_MAX` bytes without any.

        Raises:
            _Silence: nothing arrives.
            OSError: the connection broke or ended before.
        """
        received = b""
        ends_at = time.monotonic() + self._timeout
        while b"\0" not in received and len(received) < ANSWER_MAX:
            self._wait(select.POLLIN, ends_at=ends_at)
            piece = self._socket.recv(ANSWER_MAX - len(received))
            if not piece:
                raise ConnectionResetError("the connection ended before the answer")
            received += piece
        return received

    def _wait(self, events: int, *, ends_at: float | None = None) -> int:
        """Wait for one of the events, or the end of the connection; return what happened."""
        ends_at = time.monotonic() + self._timeout if ends_at is None else ends_at
        poll = select.poll()
        poll.register(self._socket, events)
        while not self._abandoned.is_set():
            left = ends_at - time.monotonic()
            if left <= 0:
                raise _Silence(f"nothing happened for {self._timeout:.0f} s")
            ready = poll.poll(min(left, _LOOK_EVERY.total_seconds()) * 1000)
            if ready:
                return ready[0][1]
        raise _Silence("abandoned")


def _connect(address: Address) -> socket.socket:
    timeout = GREETING_TIMEOUT.total_seconds()
    if not isinstance(address, Path):
        return socket.create_connection(address, timeout=timeout)
    opened = socket.socket(socket.AF_UNIX)
    try:
        opened.settimeout(timeout)
        opened.connect(str(address))
    except BaseException:
        opened.close()
        raise
    return opened
