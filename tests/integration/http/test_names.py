"""Names are looked up at real name servers, and their addresses checked."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from notifier.delivery.outcome import AttemptOutcome
from notifier.http.dns import CachingResolver, open_lookup
from tests.fakes.receiver import Receiver
from tests.integration.http.conftest import Sender, a_sender
from tests.integration.http.name_server import Answers, NameServer, a_name_server
from tests.integration.http.test_checked_network import Detour

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.216.34"
LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def a_sender_with_names(
    answers: Answers, *, detour: Detour, allow_loopback: bool = False
) -> AsyncIterator[tuple[Sender, NameServer]]:
    async with (
        a_name_server(answers) as server,
        open_lookup(servers=[server.address]) as look_up,
        a_sender(
            allow_loopback=allow_loopback, resolve=CachingResolver(look_up), connect=detour
        ) as sender,
    ):
        yield sender, server


async def test_a_name_is_resolved_by_its_name_server(receiver: Receiver) -> None:
    detour = Detour(known=[PUBLIC], port=receiver.port)
    async with a_sender_with_names(lambda _: [PUBLIC], detour=detour) as (sender, server):
        result = await sender.post(receiver.url_of("/hook", host="receiver.example"))
    assert (result.outcome, result.remote_address) == (AttemptOutcome.DELIVERED, PUBLIC)
    assert result.timings.dns is not None
    assert server.asked == ["receiver.example"]


async def test_names_are_absolute() -> None:
    async with a_sender_with_names(lambda _: [], detour=Detour(known=[], port=1)) as (
        sender,
        server,
    ):
        for host in ("receiver", "receiver.other", "receiver.example.com"):
            result = await sender.post(f"http://{host}/")
            assert result.outcome is AttemptOutcome.NAME_UNRESOLVED
    assert server.asked == ["receiver", "receiver.other", "receiver.example.com"]


async def test_fifty_silent_names_delay_no_other_name(receiver: Receiver) -> None:
    count = 50
    detour = Detour(known=[PUBLIC], port=receiver.port)

    asked, all_asked = set[str](), asyncio.Event()

    def answers(name: str) -> Sequence[str] | None:
        if not name.startswith("silent"):
            return [PUBLIC]
        asked.add(name)
        if len(asked) == count:
            all_asked.set()
        return None

    async with a_sender_with_names(answers, detour=detour) as (sender, _):
        silent = [
            asyncio.create_task(sender.post(f"http://silent{number}.example/"))
            for number in range(count)
        ]
        async with asyncio.timeout(10):
            await all_asked.wait()
        result = await sender.post(receiver.url_of("/hook", host="good.example"))
        assert result.outcome is AttemptOutcome.DELIVERED
        assert not any(task.done() for task in silent)
        results = await asyncio.gather(*silent)
    assert {result.outcome for result in results} == {AttemptOutcome.NAME_UNRESOLVED}


@pytest.mark.parametrize("last", [PUBLIC, "10.0.0.1"])
async def test_all_of_a_thousand_addresses_are_checked_and_few_are_tried(last: str) -> None:
    addresses = [f"93.184.{high}.{low}" for high in range(4) for low in range(250)] + [last]
    detour = Detour(known=[], port=1)
    async with a_sender_with_names(lambda _: addresses, detour=detour) as (sender, _):
        result = await sender.post("http://many.example/")
    if last == PUBLIC:
        assert result.outcome is AttemptOutcome.UNREACHABLE
        assert len(detour.dialled) == 4
    else:
        assert result.outcome is AttemptOutcome.TARGET_REFUSED
        assert detour.dialled == []


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1"])
async def test_a_forbidden_ipv6_address_is_refused(address: str) -> None:
    detour = Detour(known=[], port=1)
    async with a_sender_with_names(lambda _: [PUBLIC, address], detour=detour) as (sender, _):
        result = await sender.post("http://receiver.example/")
    assert result.outcome is AttemptOutcome.TARGET_REFUSED
    assert result.error is not None
    assert address not in result.error
    assert detour.dialled == []


async def test_a_name_that_alternates_between_addresses_never_reaches_the_forbidden_one(
    receiver: Receiver,
) -> None:
    turn = 0

    def rebinding(_: str) -> Sequence[str]:
        nonlocal turn
        turn += 1
        return [PUBLIC] if turn % 3 else [LOOPBACK]

    detour = Detour(known=[PUBLIC, LOOPBACK], port=receiver.port)
    outcomes: Counter[AttemptOutcome] = Counter()
    for _ in range(20):
        # A new client each time: a kept connection would hide the name server.
        async with a_sender_with_names(rebinding, detour=detour) as (sender, _server):
            result = await sender.post(receiver.url_of("/hook", host="rebind.example"))
            outcomes[result.outcome] += 1
    assert set(detour.dialled) == {PUBLIC}
    assert outcomes.keys() == {AttemptOutcome.DELIVERED, AttemptOutcome.TARGET_REFUSED}


async def test_the_other_address_family_is_tried_early(receiver: Receiver) -> None:
    addresses = [f"2001:4860::{number}" for number in range(1, 9)] + [PUBLIC]
    detour = Detour(known=[PUBLIC], port=receiver.port)
    async with a_sender_with_names(lambda _: addresses, detour=detour) as (sender, _):
        result = await sender.post(receiver.url_of("/hook", host="both.example"))
    assert result.outcome is AttemptOutcome.DELIVERED
    assert len(detour.dialled) <= 2
