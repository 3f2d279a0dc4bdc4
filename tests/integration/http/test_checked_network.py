"""A connection is made only to a checked address."""

import errno
import ssl
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address

import pytest
import structlog

from notifier.delivery.outcome import AttemptOutcome
from notifier.http.connection import Connection, Origin
from notifier.http.dns import CachingResolver, open_lookup
from notifier.http.errors import NoAnswer
from notifier.http.network import CheckedNetwork, connect_tcp
from notifier.http.pool import Pool
from notifier.http.trace import Trace
from schemas.policy.webhook_urls import TargetRefused
from tests.fakes.receiver import Receiver
from tests.integration.http.conftest import FixedResolver, a_sender
from tests.webhook_urls import ACCEPTED, REFUSED

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.216.34"
ALSO_PUBLIC = "93.184.216.35"
LOOPBACK = "127.0.0.1"


class Detour:
    """Records the addresses of connections; redirects known addresses to a local port."""

    def __init__(self, *, known: Iterable[str], port: int) -> None:
        self.dialled: list[str] = []
        self._known = set(known)
        self._port = port

    async def __call__(
        self,
        protocol: Callable[[], Connection],
        *,
        address: str,
        port: int,  # noqa: ARG002  # the signature of `ConnectTcp`
    ) -> Connection:
        self.dialled.append(address)
        if address not in self._known:
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        return await connect_tcp(protocol, address=LOOPBACK, port=self._port)


async def test_a_name_that_later_resolves_to_a_forbidden_address_is_refused(
    receiver: Receiver,
) -> None:
    names = FixedResolver({"rebind.example": [[PUBLIC], [LOOPBACK]]})
    detour = Detour(known=[PUBLIC, LOOPBACK], port=receiver.port)
    async with a_sender(allow_loopback=False, resolve=names, connect=detour) as sender:
        url = receiver.url_of("/hook", host="rebind.example")
        result = await sender.post(url)
        assert result.outcome is AttemptOutcome.DELIVERED
        assert result.remote_address == PUBLIC
        assert (names.asked, detour.dialled) == (["rebind.example"], [PUBLIC])
        # The open connection is used again; the name is not resolved again.
        again = await sender.post(url)
        assert again.reused_connection
        assert again.remote_address == PUBLIC
    async with a_sender(allow_loopback=False, resolve=names, connect=detour) as sender:
        refused = await sender.post(url)
    assert refused.outcome is AttemptOutcome.TARGET_REFUSED
    assert refused.remote_address is None
    assert detour.dialled == [PUBLIC]
    assert len(receiver.received) == 2


async def test_the_host_header_has_the_name(receiver: Receiver) -> None:
    names = FixedResolver({"xn--bcher-kva.example": [[LOOPBACK]]})
    async with a_sender(resolve=names) as sender:
        await sender.post(receiver.url_of("/hook", host="bücher.example"))
    [received] = receiver.received
    assert received.headers["host"] == f"xn--bcher-kva.example:{receiver.port}"


@pytest.mark.parametrize("addresses", [[PUBLIC, "10.0.0.1"], ["10.0.0.1", PUBLIC], ["::1", PUBLIC]])
async def test_a_name_with_one_forbidden_address_is_refused(
    receiver: Receiver, addresses: list[str]
) -> None:
    detour = Detour(known=[PUBLIC], port=receiver.port)
    names = FixedResolver({"mixed.example": [addresses]})
    async with a_sender(allow_loopback=False, resolve=names, connect=detour) as sender:
        result = await sender.post("https://mixed.example/")
    assert result.outcome is AttemptOutcome.TARGET_REFUSED
    assert detour.dialled == []
    assert result.error is not None
    assert "10.0.0.1" not in result.error


async def test_the_next_address_is_tried_if_one_is_down(receiver: Receiver) -> None:
    detour = Detour(known=[ALSO_PUBLIC], port=receiver.port)
    names = FixedResolver({"two.example": [[PUBLIC, ALSO_PUBLIC]]})
    async with a_sender(allow_loopback=False, resolve=names, connect=detour) as sender:
        result = await sender.post(receiver.url_of("/hook", host="two.example"))
    assert result.outcome is AttemptOutcome.DELIVERED
    assert result.remote_address == ALSO_PUBLIC
    assert detour.dialled == [PUBLIC, ALSO_PUBLIC]


async def test_only_the_first_addresses_of_a_name_are_tried() -> None:
    addresses = [f"93.184.{high}.{low}" for high in range(4) for low in range(250)]
    detour = Detour(known=[], port=1)
    names = FixedResolver({"many.example": [addresses]})
    async with a_sender(allow_loopback=False, resolve=names, connect=detour) as sender:
        result = await sender.post("https://many.example/")
    assert result.outcome is AttemptOutcome.UNREACHABLE
    assert len(detour.dialled) == 4


async def test_loopback_is_refused_unless_it_is_allowed(receiver: Receiver) -> None:
    async with a_sender(allow_loopback=False) as sender:
        for host in (LOOPBACK, "localhost", "[::1]", "[::ffff:127.0.0.1]"):
            result = await sender.post(receiver.url_of("/hook", host=host))
            assert result.outcome is AttemptOutcome.TARGET_REFUSED, host
    assert receiver.received == []


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0"])
async def test_a_disguised_loopback_address_is_refused_by_the_connection(host: str) -> None:
    detour = Detour(known=[], port=1)
    async with open_lookup() as look_up:
        network = CheckedNetwork(
            pool=Pool(idle_max=1),
            resolve=CachingResolver(look_up),
            allowed_networks=(),
            ssl_context=ssl.create_default_context(),
            connect=detour,
        )
        with pytest.raises((TargetRefused, NoAnswer)):
            await network.open(Origin("http", host, 80), Trace())
    assert not any(ip_address(address).is_loopback for address in detour.dialled)


async def test_the_systems_resolver_resolves_localhost(receiver: Receiver) -> None:
    async with a_sender() as sender:
        result = await sender.post(receiver.url_of("/hook", host="localhost"))
    assert result.outcome is AttemptOutcome.DELIVERED


async def test_an_unknown_name_fails_the_attempt() -> None:
    async with a_sender(resolve=FixedResolver()) as sender:
        result = await sender.post("https://nobody.example/")
    assert result.outcome is AttemptOutcome.NAME_UNRESOLVED
    assert result.error == "the host name does not resolve: Domain name not found"


async def test_a_name_without_addresses_fails_the_attempt() -> None:
    async with a_sender(resolve=FixedResolver({"empty.example": [[]]})) as sender:
        result = await sender.post("https://empty.example/")
    assert result.outcome is AttemptOutcome.NAME_UNRESOLVED


async def test_a_closed_port_fails_the_attempt(unused_port: int) -> None:
    async with a_sender() as sender:
        result = await sender.post(f"http://127.0.0.1:{unused_port}/")
    assert result.outcome is AttemptOutcome.UNREACHABLE
    assert result.error == "no connection: Connection refused"
    assert result.remote_address is None


async def test_a_delivery_refuses_the_urls_that_a_registration_refuses() -> None:
    detour = Detour(known=[], port=1)
    async with a_sender(allow_loopback=False, resolve=FixedResolver(), connect=detour) as sender:
        for url, rule in REFUSED:
            result = await sender.post(url)
            assert result.outcome is AttemptOutcome.TARGET_REFUSED, url
            assert result.status_code is None
            assert rule in (result.error or "")
    assert detour.dialled == []


async def test_a_delivery_accepts_the_urls_that_a_registration_accepts() -> None:
    async with a_sender(
        allow_loopback=False, resolve=FixedResolver(), connect=Detour(known=[], port=1)
    ) as sender:
        for url in ACCEPTED:
            result = await sender.post(url)
            assert result.outcome in {AttemptOutcome.NAME_UNRESOLVED, AttemptOutcome.UNREACHABLE}, (
                url
            )


class BrokenNames(FixedResolver):
    async def __call__(self, host: str, *, share: str | None) -> Sequence[str]:  # noqa: ARG002  # the resolver's signature
        raise RuntimeError("unexpected")


async def test_an_unexpected_error_fails_the_attempt_and_is_logged() -> None:
    with structlog.testing.capture_logs() as lines:
        async with a_sender(resolve=BrokenNames()) as sender:
            result = await sender.post("https://receiver.example/?token=hunter2")
    assert result.outcome is AttemptOutcome.PROTOCOL_ERROR
    assert [line["event"] for line in lines] == ["attempt.unexpected_error"]
    assert "hunter2" not in repr(lines) + (result.error or "")
