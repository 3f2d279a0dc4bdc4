"""Connections to receivers are reused, and closed when they are not usable."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from itertools import chain

import pytest

from notifier.delivery.attempt import AttemptResult
from notifier.delivery.outcome import AttemptOutcome
from notifier.http import pool
from schemas.settings import DeliverySettings
from tests.fakes import replies
from tests.fakes.receiver import Receiver
from tests.integration.http.certificates import Authority
from tests.integration.http.conftest import FixedResolver, Sender, a_sender

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.1"
IDLE_MAX = 20


async def deliver(sender: Sender, url: str, *, count: int, concurrency: int) -> list[AttemptResult]:
    waiting = iter(range(count))

    async def work() -> list[AttemptResult]:
        return [await sender.post(url) for _ in waiting]

    return [*chain(*await asyncio.gather(*(work() for _ in range(concurrency))))]


def reuse_ratio(results: list[AttemptResult]) -> float:
    return sum(result.reused_connection for result in results) / len(results)


async def test_concurrent_deliveries_use_one_connection_each(receiver: Receiver) -> None:
    async with a_sender() as sender:
        results = await deliver(sender, receiver.url, count=400, concurrency=20)
    assert {result.outcome for result in results} == {AttemptOutcome.DELIVERED}
    assert max(received.connection for received in receiver.received) <= 20
    assert reuse_ratio(results) >= 0.95


async def test_tls_connections_are_reused(authority: Authority) -> None:
    names = FixedResolver({"receiver.example": [[LOOPBACK]]})
    with Receiver(tls=authority.server("receiver.example")) as receiver:
        async with a_sender(resolve=names, ssl_context=authority.client()) as sender:
            url = receiver.url_of("/hook", host="receiver.example")
            results = await deliver(sender, url, count=200, concurrency=10)
        assert max(received.connection for received in receiver.received) <= 10
    assert reuse_ratio(results) >= 0.95


async def test_two_hosts_with_one_address_share_no_connection(receiver: Receiver) -> None:
    names = FixedResolver({"one.example": [[LOOPBACK]], "two.example": [[LOOPBACK]]})
    async with a_sender(resolve=names) as sender:
        for host in ("one.example", "two.example", "one.example", "two.example"):
            await sender.post(receiver.url_of("/hook", host=host))
    assert [received.connection for received in receiver.received] == [1, 2, 1, 2]


async def test_a_connection_closed_by_the_receiver_is_not_reused(receiver: Receiver) -> None:
    receiver.answer_with(
        replies.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), replies.status(204)
    )
    async with a_sender() as sender:
        await sender.post(receiver.url)
        await asyncio.to_thread(receiver.wait_until_open, 0)
        result = await sender.post(receiver.url)
    assert result.outcome is AttemptOutcome.DELIVERED
    assert not result.reused_connection


async def test_a_connection_closed_while_idle_is_not_reused(receiver: Receiver) -> None:
    async with a_sender() as sender:
        await sender.post(receiver.url)
        receiver.hang_up()
        await asyncio.to_thread(receiver.wait_until_open, 0)
        result = await sender.post(receiver.url)
    assert result.outcome is AttemptOutcome.DELIVERED
    assert not result.reused_connection


async def test_a_request_on_a_stale_connection_is_sent_again_at_once(receiver: Receiver) -> None:
    receiver.answer_with(replies.status(204), replies.hang_up(), replies.status(200, body=b"OK"))
    async with a_sender() as sender:
        await sender.post(receiver.url)
        result = await sender.post(receiver.url)
    assert (result.outcome, result.response_excerpt) == (AttemptOutcome.DELIVERED, "OK")
    assert (result.error, result.reused_connection) == (None, False)
    assert result.timings.connect is not None
    assert [received.connection for received in receiver.received] == [1, 1, 2]
    assert len({received.headers["webhook-signature"] for received in receiver.received[1:]}) == 1


async def test_a_request_is_sent_again_only_once(receiver: Receiver) -> None:
    receiver.answer_with(replies.status(204), replies.hang_up())
    async with a_sender() as sender:
        await sender.post(receiver.url)
        result = await sender.post(receiver.url)
    assert result.outcome is AttemptOutcome.PROTOCOL_ERROR
    assert result.error == "the connection broke while waiting for the response"
    assert len(receiver.received) == 3


async def test_a_request_on_a_new_connection_is_not_sent_again(receiver: Receiver) -> None:
    receiver.answer_with(replies.hang_up(), replies.status(204))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    assert result.outcome is AttemptOutcome.PROTOCOL_ERROR
    assert len(receiver.received) == 1


async def test_a_request_whose_answer_began_is_not_sent_again(receiver: Receiver) -> None:
    receiver.answer_with(replies.status(204), replies.raw(b"HTTP/1.1 2"), replies.status(204))
    async with a_sender() as sender:
        await sender.post(receiver.url)
        result = await sender.post(receiver.url)
    assert result.outcome is AttemptOutcome.PROTOCOL_ERROR
    assert len(receiver.received) == 2


async def test_a_request_is_sent_again_within_the_deadline(receiver: Receiver) -> None:
    receiver.answer_with(replies.status(204), replies.hang_up(), replies.silence())
    async with a_sender() as sender:
        await sender.post(receiver.url)
        result = await sender.post(receiver.url, timeout=timedelta(seconds=1))
    assert result.outcome is AttemptOutcome.TIMED_OUT
    assert result.duration < timedelta(seconds=1.5)


async def test_a_connection_is_not_reused_after_the_time_that_the_receiver_states(
    receiver: Receiver,
) -> None:
    receiver.answer_with(replies.status(204, headers={"Keep-Alive": "timeout=1, max=100"}))
    async with a_sender() as sender:
        results = [await sender.post(receiver.url) for _ in range(2)]
    assert not results[1].reused_connection


async def test_an_old_connection_is_not_reused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_sender() as sender:
        await sender.post(receiver.url)
        monkeypatch.setattr(pool, "AGE_MAX", 0.0)
        assert (await sender.post(receiver.url)).reused_connection
        assert not (await sender.post(receiver.url)).reused_connection


async def test_idle_connections_are_closed(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "IDLE_TIME", 0.2)
    async with a_sender() as sender:
        await deliver(sender, receiver.url, count=10, concurrency=5)
        await asyncio.to_thread(receiver.wait_until_open, 0)


async def test_a_cancelled_attempt_leaves_no_connection_open(
    receiver: Receiver,
) -> None:
    async with a_sender() as sender:
        for moments in range(60):
            attempt = asyncio.create_task(sender.post(receiver.url))
            for _ in range(moments):
                await asyncio.sleep(0)
            attempt.cancel()
            with suppress(asyncio.CancelledError):
                await attempt
    await asyncio.to_thread(receiver.wait_until_open, 0)


async def test_the_number_of_idle_connections_is_bounded(
    receiver: Receiver,
) -> None:
    hosts = [f"h{number}.example" for number in range(IDLE_MAX + 20)]
    names = FixedResolver({host: [[LOOPBACK]] for host in hosts})
    bounded = DeliverySettings(webhook_idle_connections=IDLE_MAX)
    async with a_sender(resolve=names, settings=bounded) as sender:
        for host in hosts:
            await sender.post(receiver.url_of("/hook", host=host))
        await asyncio.to_thread(receiver.wait_until_open, IDLE_MAX)
        # The connections unused for the longest time are closed.
        newest = await sender.post(receiver.url_of("/hook", host=hosts[-1]))
        oldest = await sender.post(receiver.url_of("/hook", host=hosts[0]))
        assert (newest.reused_connection, oldest.reused_connection) == (True, False)


async def test_closing_the_client_closes_its_connections(receiver: Receiver) -> None:
    async with a_sender() as sender:
        await deliver(sender, receiver.url, count=10, concurrency=5)
    await asyncio.to_thread(receiver.wait_until_open, 0)
