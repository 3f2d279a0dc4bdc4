"""One deadline over every phase of an attempt."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from notifier.delivery.outcome import AttemptOutcome
from tests.fakes import replies
from tests.fakes.receiver import Receiver
from tests.integration.http.conftest import FixedResolver, a_sender

pytestmark = pytest.mark.anyio

DEADLINE = timedelta(seconds=1)
GRACE = timedelta(seconds=0.5)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("reply", "phase"),
    [
        (replies.silence(), "waiting for the response"),
        (replies.slow_headers(every=SECOND), "waiting for the response"),
        (replies.slow_headers(every=SECOND / 1000), "waiting for the response"),
        (replies.late(2 * SECOND, replies.status(204)), "waiting for the response"),
    ],
    ids=["silent", "a byte of headers a second", "a byte a millisecond", "late"],
)
async def test_a_slow_answer_ends_at_the_deadline(
    receiver: Receiver, reply: replies.Reply, phase: str
) -> None:
    receiver.answer_with(reply)
    async with a_sender() as sender:
        result = await sender.post(receiver.url, timeout=DEADLINE)
        assert result.outcome is AttemptOutcome.TIMED_OUT
        assert result.status_code is None
        assert result.error == f"1 s passed while {phase}"
        assert DEADLINE <= result.duration < DEADLINE + GRACE
        await asyncio.to_thread(receiver.wait_until_open, 0)


async def test_a_slow_body_ends_at_the_deadline(receiver: Receiver) -> None:
    receiver.answer_with(replies.slow_body(every=SECOND, code=500))
    async with a_sender() as sender:
        result = await sender.post(receiver.url, timeout=DEADLINE)
        assert (result.outcome, result.status_code) == (AttemptOutcome.REJECTED, 500)
        assert result.error == "1 s passed while reading the response"
        assert DEADLINE <= result.duration < DEADLINE + GRACE
        await asyncio.to_thread(receiver.wait_until_open, 0)


async def test_a_2xx_with_a_slow_body_is_a_delivery(receiver: Receiver) -> None:
    receiver.answer_with(replies.slow_body(every=SECOND))
    async with a_sender() as sender:
        result = await sender.post(receiver.url, timeout=DEADLINE)
    assert (result.outcome, result.status_code) == (AttemptOutcome.DELIVERED, 200)
    assert result.duration < DEADLINE + GRACE


async def test_a_tls_handshake_ends_at_the_deadline(receiver: Receiver) -> None:
    async with a_sender() as sender:
        url = receiver.url.replace("http:", "https:")
        result = await sender.post(url, timeout=DEADLINE)
        assert result.outcome is AttemptOutcome.TIMED_OUT
        assert result.error == "1 s passed while in the TLS handshake"
        await asyncio.to_thread(receiver.wait_until_open, 0)


class NoNameServer(FixedResolver):
    async def __call__(self, host: str, *, share: str | None) -> Sequence[str]:
        await asyncio.Event().wait()
        return await super().__call__(host, share=share)


async def test_a_name_lookup_ends_at_the_deadline() -> None:
    async with a_sender(resolve=NoNameServer()) as sender:
        result = await sender.post("http://receiver.example/", timeout=DEADLINE)
    assert result.outcome is AttemptOutcome.TIMED_OUT
    assert result.error == "1 s passed while looking up the name"


async def test_slow_receivers_do_not_delay_others(receiver: Receiver) -> None:
    with Receiver() as slow:
        slow.answer_with(replies.silence())
        async with a_sender() as sender:
            hanging = [
                asyncio.create_task(sender.post(slow.url, timeout=3 * DEADLINE)) for _ in range(50)
            ]
            await asyncio.to_thread(slow.wait_for, 50)
            result = await sender.post(receiver.url)
            assert result.outcome is AttemptOutcome.DELIVERED
            assert not any(task.done() for task in hanging)
            assert {(await task).outcome for task in hanging} == {AttemptOutcome.TIMED_OUT}


async def test_a_cancelled_attempt_closes_its_connection(receiver: Receiver) -> None:
    receiver.answer_with(replies.silence())
    async with a_sender() as sender:
        task = asyncio.create_task(sender.post(receiver.url))
        await asyncio.to_thread(receiver.wait_for, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(receiver.wait_until_open, 0)
