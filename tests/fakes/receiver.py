"""A webhook receiver: an HTTP server on 127.0.0.1 that records its requests.

with Receiver() as receiver:
    receiver.answer_with(replies.status(503), replies.status(204))
    ...  # deliver something to receiver.url
    first, second = receiver.wait_for(2, timeout=timedelta(seconds=10))
    event = second.verified_with(secret)
"""

import asyncio
import contextlib
import itertools
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import standardwebhooks

from tests.fakes import replies
from tests.fakes.replies import Reply


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request; header names are in lower case.

    Attributes:
        connection: the number of its connection, counted from 1.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: datetime
    connection: int

    @property
    def signed_at(self) -> datetime:
        """The second in which the request was signed."""
        return datetime.fromtimestamp(int(self.headers["webhook-timestamp"]), UTC)

    def verified_with(self, secret: str) -> Any:  # noqa: ANN401  # JSON of any kind
        """Check the signature with the official library and return the JSON of the body.

        Raises:
            standardwebhooks.WebhookVerificationError: the signature was made with another secret.
        """
        return standardwebhooks.Webhook(secret).verify(self.body, dict(self.headers))


class Receiver:
    """Answers 204 by default. Thread-safe."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._arrival = threading.Condition()
        self._received: list[Received] = []
        self._connections = itertools.count(1)
        self._conversations: set[asyncio.Task[None]] = set()
        self._replies: dict[str | None, deque[Reply]] = defaultdict(
            lambda: deque([replies.status(204)])
        )
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return self.url_of("/hook")

    def url_of(self, path: str, *, host: str = "127.0.0.1") -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{host}:{self.port}{path}"

    def answer_with(self, *sequence: Reply, path: str | None = None) -> None:
        """Answer the next requests with these replies in order, all later requests with the last.

        With `path`, the sequence applies only to that path; other paths use the general sequence.
        """
        self._replies[path] = deque(sequence)

    def hang_up(self) -> None:
        """Close every connection, as in a restart; new connections are accepted."""
        self._loop.call_soon_threadsafe(self._end_conversations)

    @property
    def received(self) -> list[Received]:
        with self._arrival:
            return list(self._received)

    def wait_for(self, count: int, *, timeout: timedelta = timedelta(seconds=10)) -> list[Received]:
        """Return all requests once there are at least `count`.

        Raises:
            AssertionError: fewer arrived in time; the message names their paths.
        """
        with self._arrival:
            enough = self._arrival.wait_for(
                lambda: len(self._received) >= count, timeout=timeout.total_seconds()
            )
            if not enough:
                paths = [request.path for request in self._received]
                raise AssertionError(f"{len(paths)} of {count} requests within {timeout}: {paths}")
            return list(self._received)

    def wait_until_open(
        self, connections: int, *, timeout: timedelta = timedelta(seconds=10)
    ) -> None:
        """Return once exactly this many connections are open.

        Raises:
            AssertionError: another number is open when the time is over.
        """
        with self._arrival:
            if not self._arrival.wait_for(
                lambda: len(self._conversations) == connections, timeout=timeout.total_seconds()
            ):
                raise AssertionError(
                    f"{len(self._conversations)} connections open, not {connections}"
                )

    def _end_conversations(self) -> None:
        for task in self._conversations:
            task.cancel()

    def _hung_up(self, conversation: asyncio.Task[None]) -> None:
        with self._arrival:
            self._conversations.discard(conversation)
            self._arrival.notify_all()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._conversations.add(task)
            task.add_done_callback(self._hung_up)
            # The conversation also ends when the sender disconnects or the test ends.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._converse(reader, writer)
            writer.transport.abort()

        server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        self._end_conversations()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = next(self._connections)
        while not writer.is_closing():
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request_line, *lines = head.rstrip("\r\n").split("\r\n")
            method, path, _ = request_line.split(" ")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            received = Received(
                method=method,
                path=path,
                headers=headers,
                body=body,
                at=datetime.now(UTC),
                connection=connection,
            )
            with self._arrival:
                self._received.append(received)
                self._arrival.notify_all()
            await self._next_reply(path)(reader, writer)

    def _next_reply(self, path: str) -> Reply:
        sequence = self._replies[path if path in self._replies else None]
        return sequence.popleft() if len(sequence) > 1 else sequence[0]
