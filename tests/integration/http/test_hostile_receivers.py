"""A receiver that floods, drips or breaks off costs little, and its attempt ends with a result."""

import asyncio
import time
from datetime import timedelta
from typing import Self

import pytest

from notifier.delivery.attempt import EXCERPT_TIME
from notifier.delivery.outcome import AttemptOutcome
from notifier.http import work
from tests.fakes import replies
from tests.fakes.receiver import Receiver
from tests.integration.http.certificates import Authority
from tests.integration.http.conftest import FixedResolver, a_sender, serving

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.1"
CHUNKED = b"HTTP/1.1 %d x\r\ntransfer-encoding: chunked\r\n\r\n"

FLOODS = {
    "interim answers": replies.flood(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim answers with headers": replies.flood(b"HTTP/1.1 103 x\r\nlink: </>\r\n\r\n"),
    "tiny headers": replies.flood(b"a:\r\n", head=b"HTTP/1.1 200 OK\r\n"),
    "one header": replies.flood(b"a", head=b"HTTP/1.1 500 x\r\nx: "),
    "a status line": replies.flood(b"a", head=b"HTTP/1.1 200 "),
    "tiny chunks": replies.flood(b"1\r\na\r\n", head=CHUNKED % 500),
    "tiny chunks of a success": replies.flood(b"1\r\na\r\n", head=CHUNKED % 200),
    "chunk extensions": replies.flood(b";a=b", head=(CHUNKED % 500) + b"1"),
    "chunks with extensions": replies.flood(b"1;a=b;c\r\na\r\n", head=CHUNKED % 200),
    "trailers": replies.flood(b"a:\r\n", head=(CHUNKED % 200) + b"0\r\n"),
    "a body without an end": replies.flood(b"a", head=b"HTTP/1.1 500 x\r\n\r\n"),
    "answers": replies.flood(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    "noise": replies.flood(bytes(range(256))),
}


class LoopTime:
    """Measures the CPU time of the iterations of the event loop."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.total = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _measure(self) -> None:
        while True:
            before = time.thread_time()
            # Not `sleep(0)`, whose own CPU time would be all that is measured.
            await asyncio.sleep(0.0005)
            spent = time.thread_time() - before
            self.longest = max(self.longest, spent)
            self.total += spent


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_a_flood_ends_its_attempt_and_does_not_hold_the_loop(
    receiver: Receiver, flood: replies.Reply
) -> None:
    receiver.answer_with(flood)
    async with a_sender() as sender:
        async with LoopTime() as loop_time:
            result = await sender.post(receiver.url)
            await asyncio.to_thread(receiver.wait_until_open, 0)
        assert result.outcome is not AttemptOutcome.TIMED_OUT
        assert result.duration < timedelta(seconds=4)
        assert loop_time.longest < 0.01


async def test_a_flood_over_tls_does_not_hold_the_loop(authority: Authority) -> None:
    names = FixedResolver({"receiver.example": [[LOOPBACK]]})
    with Receiver(tls=authority.server("receiver.example")) as receiver:
        receiver.answer_with(FLOODS["tiny headers"])
        url = receiver.url_of("/hook", host="receiver.example")
        async with a_sender(resolve=names, ssl_context=authority.client()) as sender:
            await sender.post(url)
            async with LoopTime() as loop_time:
                result = await sender.post(url)
                await asyncio.to_thread(receiver.wait_until_open, 0)
    assert (result.outcome, result.status_code) == (AttemptOutcome.DELIVERED, 200)
    assert result.error is not None
    assert loop_time.longest < 0.02  # with the handshake


async def test_an_address_that_floods_again_and_again_gets_less(receiver: Receiver) -> None:
    receiver.answer_with(FLOODS["tiny headers"])
    attempts = 60
    async with a_sender() as sender, LoopTime() as loop_time:
        results = await asyncio.gather(*(sender.post(receiver.url) for _ in range(attempts)))
    assert {result.status_code for result in results} == {200}
    errors = [result.error for result in results]
    assert errors.count("the answer takes too much work to read") > attempts / 2
    # Without the bound of an address, each would cost 4 ms and its connection.
    assert loop_time.total < work.DEBT_MAX + attempts * 0.003


async def test_fifty_floods_leave_the_loop_to_others(receiver: Receiver) -> None:
    receiver.answer_with(*[FLOODS["tiny headers"], FLOODS["tiny chunks"]] * 50)
    with Receiver() as healthy:
        async with a_sender() as sender:
            floods = [asyncio.create_task(sender.post(receiver.url)) for _ in range(50)]
            async with LoopTime() as loop_time:
                results = [await sender.post(healthy.url) for _ in range(50)]
            await asyncio.gather(*floods)
    assert {result.outcome for result in results} == {AttemptOutcome.DELIVERED}
    assert loop_time.longest < 0.1


async def test_the_rest_of_a_success_is_not_awaited(receiver: Receiver) -> None:
    receiver.answer_with(replies.slow_body(every=timedelta(seconds=0.1)), replies.status(204))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
        assert (result.outcome, result.error) == (AttemptOutcome.DELIVERED, None)
        assert result.duration < timedelta(seconds=0.5)
        again = await sender.post(receiver.url)
        assert (again.outcome, again.reused_connection) == (AttemptOutcome.DELIVERED, False)
        await asyncio.to_thread(receiver.wait_until_open, 1, timeout=timedelta(seconds=5))


async def test_a_connection_is_reused_after_the_rest_of_a_success(receiver: Receiver) -> None:
    rest = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def two_parts(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nOK")
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(rest.wait(), loop))
        writer.write(b"OK")

    receiver.answer_with(two_parts, replies.status(204))
    async with a_sender() as sender:
        first = await sender.post(receiver.url)
        assert (first.outcome, first.response_excerpt) == (AttemptOutcome.DELIVERED, "OK")
        rest.set()
        async with asyncio.timeout(10):
            # Each takes another connection until the first one is idle.
            while not (await sender.post(receiver.url)).reused_connection:
                pass
        assert {received.connection for received in receiver.received} >= {1}


async def test_the_rest_of_a_failure_is_awaited_for_a_short_time(receiver: Receiver) -> None:
    receiver.answer_with(replies.slow_body(every=timedelta(seconds=0.1), code=500))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
        await asyncio.to_thread(receiver.wait_until_open, 0)
    assert (result.outcome, result.status_code) == (AttemptOutcome.REJECTED, 500)
    assert result.error == "the rest of the response took more than 2 s"
    assert result.response_excerpt.startswith("zz")
    assert EXCERPT_TIME <= result.duration < EXCERPT_TIME + timedelta(seconds=1)


async def test_a_connection_that_is_reset_within_the_body_leaves_the_status(
    receiver: Receiver,
) -> None:
    receiver.answer_with(replies.reset(b"HTTP/1.1 500 x\r\ncontent-length: 100\r\n\r\npart"))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    assert result.outcome in {AttemptOutcome.REJECTED, AttemptOutcome.PROTOCOL_ERROR}
    assert result.error == (
        "the connection broke while reading the response"
        if result.status_code
        else "the connection broke while waiting for the response"
    )


async def test_an_answer_before_the_end_of_the_request_counts_and_ends_the_connection() -> None:
    connections = 0

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 x\r\ncontent-length: 0\r\n\r\n")
        await asyncio.Event().wait()

    async with serving(early) as port, a_sender() as sender:
        for _ in range(2):
            result = await sender.post(f"http://{LOOPBACK}:{port}/", body=bytes(32 * 1024 * 1024))
            assert (result.status_code, result.reused_connection) == (413, False)
    assert connections == 2


async def test_bytes_on_an_idle_connection_end_it() -> None:
    connections = 0
    sent = asyncio.Event()
    idle = asyncio.Event()

    async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 x\r\n\r\n")
        await idle.wait()
        writer.write(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n")
        await reader.read()
        sent.set()

    async with serving(talkative) as port, a_sender() as sender:
        assert (
            await sender.post(f"http://{LOOPBACK}:{port}/", body=b"")
        ).outcome is AttemptOutcome.DELIVERED
        idle.set()
        await sent.wait()
        again = await sender.post(f"http://{LOOPBACK}:{port}/", body=b"")
        assert (again.outcome, again.reused_connection) == (AttemptOutcome.DELIVERED, False)
    assert connections == 2
