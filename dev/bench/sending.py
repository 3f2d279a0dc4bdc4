"""Sends files to a server and measures the time."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Self

from dev.bench.receivers import Receiver, Sending
from dev.bench.usage import MIB
from dev.bench.wire import Connection, Content


@dataclass(frozen=True, kw_only=True)
class Load:
    """Files of one size; each client sends one file, chunk after chunk."""

    files: int
    size: int
    chunk_size: int

    def __str__(self) -> str:
        files = f"{self.files} files of " if self.files > 1 else ""
        return f"{files}{shown(self.size)}, chunks of {shown(self.chunk_size)}"

    @property
    def total_mib(self) -> float:
        return self.files * self.size / MIB


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Time to send a load, from the first request to the last acknowledgement."""

    seconds: float
    client_cpu_seconds: float
    sendings: tuple[Sending, ...]

    @classmethod
    def around(cls, send: Callable[[], tuple[Sending, ...]]) -> Self:
        began, cpu_began = time.perf_counter(), time.process_time()
        sendings = send()
        return cls(
            seconds=time.perf_counter() - began,
            client_cpu_seconds=time.process_time() - cpu_began,
            sendings=sendings,
        )


def shown(size: int) -> str:
    """Return a size in the largest unit that leaves no fraction."""
    for unit, name in ((1024 * MIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def file_by_file(receiver: Receiver, load: Load, *, content: Content) -> Measured:
    """Send the files of a load concurrently, each over one connection."""

    def one(_: int) -> Sending:
        with closing(receiver.connect()) as connection:
            sending = receiver.begin(connection, size=load.size, chunk_size=load.chunk_size)
            for index in sending.chunks:
                receiver.send(connection, sending, index=index, content=content)
            receiver.end(connection, sending)
            return sending

    with ThreadPoolExecutor(load.files) as clients:
        return Measured.around(lambda: tuple(clients.map(one, range(load.files))))


def over_connections(
    receiver: Receiver, load: Load, *, content: Content, connections: int
) -> Measured:
    """Send the chunks of one file over several connections, without finalizing."""

    def send() -> tuple[Sending]:
        with closing(receiver.connect()) as connection:
            sending = receiver.begin(connection, size=load.size, chunk_size=load.chunk_size)
        waiting: SimpleQueue[int | None] = SimpleQueue()
        for index in (*sending.chunks, *[None] * connections):
            waiting.put(index)

        def take(connection: Connection) -> None:
            with closing(connection):
                while (index := waiting.get()) is not None:
                    receiver.send(connection, sending, index=index, content=content)

        for done in [senders.submit(take, receiver.connect()) for _ in range(connections)]:
            done.result()
        return (sending,)

    with ThreadPoolExecutor(connections) as senders:
        return Measured.around(send)


def forget(receiver: Receiver, measured: Measured) -> None:
    with closing(receiver.connect()) as connection:
        for sending in measured.sendings:
            receiver.forget(connection, sending)
