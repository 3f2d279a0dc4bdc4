"""Programs at the address of a scanner that are not clamd, or are broken."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import TypeAlias

BLOCK = 64 * 1024

Server: TypeAlias = Callable[[socket.socket], None]
"""Serves one connection."""


@contextmanager
def listening(*servers: Server) -> Iterator[tuple[str, int]]:
    """Serve connections with the servers in turn; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for server in cycle(servers):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(ConnectionError):
                    connection.settimeout(30)
                    server(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=30)
            assert not thread.is_alive()


def answers(content: bytes) -> Server:
    """Return a server that reads a request, answers, and closes."""

    def serve(connection: socket.socket) -> None:
        connection.recv(64)
        connection.sendall(content)

    return serve


def answers_after_the_stream(content: bytes) -> Server:
    def serve(connection: socket.socket) -> None:
        received = b""
        while not received.endswith(bytes(4)):
            received += connection.recv(BLOCK)
        connection.sendall(content)

    return serve


def is_silent(connection: socket.socket) -> None:
    """Take the stream and never answer."""
    while connection.recv(BLOCK):
        pass


def closes(connection: socket.socket) -> None:
    connection.recv(64)


def answers_without_an_end(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x" * BLOCK)


pong = answers(b"PONG\0")
