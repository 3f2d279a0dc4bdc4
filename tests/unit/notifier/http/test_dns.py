import asyncio
from collections.abc import Sequence

import pytest

from notifier.http import dns
from notifier.http.dns import Addresses, CachingResolver
from notifier.http.errors import NameUnresolved

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class NameServer:
    """Answers when it is told to; counts the questions."""

    def __init__(self, *, ttl: float = 60, addresses: Sequence[str] = ("93.184.216.34",)) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self._found = Addresses(addresses=addresses, ttl=ttl)

    async def __call__(self, host: str) -> Addresses:
        self.asked.append(host)
        if host.startswith("silent"):
            await asyncio.Event().wait()
        await self.answers.wait()
        if host.startswith("unknown"):
            raise NameUnresolved("Domain name not found")
        return self._found


async def settled() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_addresses_are_kept_for_a_short_time() -> None:
    names = NameServer()
    resolve = CachingResolver(names)
    for _ in range(3):
        assert await resolve("a.example", share="") == ("93.184.216.34",)
    assert names.asked == ["a.example"]


async def test_addresses_are_not_kept_longer_than_their_records_allow() -> None:
    names = NameServer(ttl=0)
    resolve = CachingResolver(names)
    for _ in range(2):
        await resolve("a.example", share="")
    assert names.asked == ["a.example", "a.example"]


async def test_addresses_are_not_kept_longer_than_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dns, "TTL_MAX", 0.0)
    names = NameServer(ttl=86400)
    resolve = CachingResolver(names)
    for _ in range(2):
        await resolve("a.example", share="")
    assert len(names.asked) == 2


async def test_the_addresses_of_a_name_with_many_are_not_kept() -> None:
    names = NameServer(addresses=["93.184.216.34"] * (dns.KEPT_MAX + 1))
    resolve = CachingResolver(names)
    for _ in range(2):
        assert len(await resolve("a.example", share=None)) == dns.KEPT_MAX + 1
    assert len(names.asked) == 2


async def test_concurrent_look_ups_of_a_name_ask_once() -> None:
    names = NameServer()
    names.answers.clear()
    resolve = CachingResolver(names)
    tasks = [asyncio.create_task(resolve("a.example", share=str(n % 3))) for n in range(30)]
    await settled()
    names.answers.set()
    assert await asyncio.gather(*tasks) == [("93.184.216.34",)] * 30
    assert names.asked == ["a.example"]


async def test_a_look_up_goes_on_when_the_first_that_asked_is_cancelled() -> None:
    names = NameServer()
    names.answers.clear()
    resolve = CachingResolver(names)
    first, second = (asyncio.create_task(resolve("a.example", share="")) for _ in range(2))
    await settled()
    first.cancel()
    await settled()
    names.answers.set()
    assert await second == ("93.184.216.34",)
    assert names.asked == ["a.example"]


async def test_a_failure_is_kept_for_a_moment() -> None:
    names = NameServer()
    resolve = CachingResolver(names)
    for _ in range(3):
        with pytest.raises(NameUnresolved, match="Domain name not found"):
            await resolve("unknown.example", share="")
    assert names.asked == ["unknown.example"]


async def test_a_name_without_addresses_is_unresolved() -> None:
    with pytest.raises(NameUnresolved, match="no addresses"):
        await CachingResolver(NameServer(addresses=()))("a.example", share="")


async def test_a_look_up_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "LOOKUP_MAX", 0.05)
    with pytest.raises(NameUnresolved, match=r"no answer within 0\.05 s"):
        await CachingResolver(NameServer())("silent.example", share="")


async def test_silent_names_of_a_share_delay_no_other_share() -> None:
    names = NameServer()
    resolve = CachingResolver(names)
    silent = [
        asyncio.create_task(resolve(f"silent{number}.example", share="one"))
        for number in range(dns.SHARE_MAX + 10)
    ]
    await settled()
    assert len(names.asked) == dns.SHARE_MAX
    assert await resolve("good.example", share="two") == ("93.184.216.34",)
    waiting = asyncio.create_task(resolve("other.example", share="one"))
    await settled()
    assert not waiting.done()
    for task in [*silent, waiting]:
        task.cancel()
    await asyncio.gather(*silent, waiting, return_exceptions=True)


async def test_the_number_of_kept_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "NAMES_MAX", 2)
    names = NameServer()
    resolve = CachingResolver(names)
    for host in ("a.example", "b.example", "c.example", "c.example", "a.example"):
        await resolve(host, share="")
    assert names.asked == ["a.example", "b.example", "c.example", "a.example"]
