"""Measures how much of a body a server buffers while the application does not read."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psutil

from dev.bench import wire
from dev.bench.usage import MIB, watched
from dev.stack import ports
from dev.stack.checkout import CHECKOUT

SILENCE_SECONDS: Final = 1.0
"""A server that accepts no byte for so long has stopped reading."""


@dataclass(frozen=True, kw_only=True)
class Buffered:
    sent_mib: float
    """Sent by the client, including the kernel's buffers."""
    grown_mib: float


def measure(server: str, *, offered: int) -> Buffered:
    """Send a body to an application that never reads, until the server stops reading."""
    with _never_reading(server) as (pid, port), watched({server: pid}) as usage:
        sent = _send_until_stuck(port, offered=offered)
    return Buffered(sent_mib=sent / MIB, grown_mib=usage.grown_mib[server])


def _send_until_stuck(port: int, *, offered: int) -> int:
    block = bytes(MIB)
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=SILENCE_SECONDS) as connection:
        head = f"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {offered}\r\n\r\n"
        connection.sendall(head.encode())
        try:
            while sent < offered:
                sent += connection.send(block[: offered - sent])
        except TimeoutError:
            return sent
        # The server read everything; its memory grows shortly afterwards.
        time.sleep(SILENCE_SECONDS)
    return sent


@contextmanager
def _never_reading(server: str) -> Iterator[tuple[int, int]]:
    port = next(port for port in range(ports.FIRST, ports.LAST) if ports.is_free(port))
    with subprocess.Popen(
        [sys.executable, "-m", "dev.bench.asgi", server, "--port", str(port)], cwd=CHECKOUT
    ) as process:
        try:
            wire.wait_until_answering("127.0.0.1", port, path="/health/ready")
            yield process.pid, port
        finally:
            # SIGTERM would wait for the request that is never answered.
            server_process = psutil.Process(process.pid)
            for each in (*server_process.children(recursive=True), server_process):
                each.kill()
