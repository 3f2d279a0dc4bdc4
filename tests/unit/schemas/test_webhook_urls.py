from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import ErrorCode
from schemas.policy import webhook_urls
from schemas.policy.webhook_urls import Network, TargetRefused
from tests.webhook_urls import ACCEPTED, LOOPBACK, LOOPBACK_NETWORKS, NOT_PUBLIC, REFUSED

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2001:200::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]
ON_LOOPBACK = [
    "127.0.0.1",
    "127.1.2.3",
    "127.255.255.255",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "64:ff9b::127.0.0.1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_accepted(address: str) -> None:
    assert webhook_urls.check_addresses([address], allowed_networks=()) == [ip_address(address)]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(TargetRefused) as caught:
        webhook_urls.check_addresses([address], allowed_networks=())
    assert caught.value.code is ErrorCode.WEBHOOK_URL_REFUSED
    assert address not in str(caught.value)


def test_a_host_with_one_address_that_is_not_public_is_refused() -> None:
    with pytest.raises(TargetRefused):
        webhook_urls.check_addresses(["93.184.216.34", "10.0.0.1"], allowed_networks=())


def test_a_host_with_too_many_addresses_is_refused() -> None:
    addresses = ["93.184.216.34"] * webhook_urls.ADDRESSES_MAX
    assert len(webhook_urls.check_addresses(addresses, allowed_networks=())) == len(addresses)
    with pytest.raises(TargetRefused, match="more than 1024 addresses"):
        webhook_urls.check_addresses([*addresses, "93.184.216.34"], allowed_networks=())


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_a_loopback_address_is_accepted_where_loopback_is_allowed(address: str) -> None:
    assert webhook_urls.check_addresses([address], allowed_networks=LOOPBACK_NETWORKS) == [
        ip_address(address)
    ]


@pytest.mark.parametrize("address", sorted({*NOT_PUBLIC} - {*ON_LOOPBACK}))
def test_where_loopback_is_allowed_other_special_addresses_are_still_refused(address: str) -> None:
    with pytest.raises(TargetRefused):
        webhook_urls.check_addresses([address], allowed_networks=LOOPBACK_NETWORKS)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
@example(ip_address("64:ff9b::7f00:1"))
def test_an_address_that_the_standard_library_calls_special_is_not_public(
    address: IPv4Address | IPv6Address,
) -> None:
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    if special and not mapped:
        assert not webhook_urls.is_public(address)


@pytest.mark.parametrize(("url", "requested"), ACCEPTED.items())
def test_an_accepted_url_is_requested_with_an_ascii_host(url: str, requested: str) -> None:
    webhook_urls.check(url, allowed_networks=())
    assert webhook_urls.parse(url) == requested


@pytest.mark.parametrize(("url", "rule"), REFUSED)
@pytest.mark.parametrize("allowed_networks", [LOOPBACK_NETWORKS, ()], ids=["loopback", "none"])
def test_a_refusal_names_the_broken_rule(
    url: str, rule: str, allowed_networks: tuple[Network, ...]
) -> None:
    with pytest.raises(TargetRefused, match=rule):
        webhook_urls.check(url, allowed_networks=allowed_networks)


@pytest.mark.parametrize("address", ["10.20.0.1", "::ffff:10.20.0.1", "fd12::1"])
def test_an_address_in_an_allowed_network_is_accepted(address: str) -> None:
    networks = (ip_network("10.20.0.0/16"), ip_network("fd12::/16"))
    webhook_urls.check_addresses([address], allowed_networks=networks)
    host = f"[{address}]" if ":" in address else address
    webhook_urls.check(f"https://{host}/", allowed_networks=networks)


@pytest.mark.parametrize("address", ["10.21.0.1", "192.168.0.1", "127.0.0.1"])
def test_an_address_outside_of_the_allowed_networks_is_refused(address: str) -> None:
    with pytest.raises(TargetRefused):
        webhook_urls.check_addresses([address], allowed_networks=(ip_network("10.20.0.0/16"),))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fe80::1",
    ],
)
def test_a_metadata_service_is_refused_in_every_allowed_network(address: str) -> None:
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    with pytest.raises(TargetRefused):
        webhook_urls.check_addresses([address], allowed_networks=everything)


@pytest.mark.parametrize("url", LOOPBACK)
def test_a_loopback_url_is_accepted_only_where_loopback_is_allowed(url: str) -> None:
    webhook_urls.check(url, allowed_networks=LOOPBACK_NETWORKS)
    with pytest.raises(TargetRefused, match="not public"):
        webhook_urls.check(url, allowed_networks=())


@pytest.mark.parametrize(
    "url",
    ["https://user:hunter2@example.com/?token=hunter2", "https://10.0.0.1/in?token=hunter2"],
)
def test_a_refusal_does_not_contain_the_url(url: str) -> None:
    with pytest.raises(TargetRefused) as refused:
        webhook_urls.check(url, allowed_networks=())
    assert "hunter2" not in str(refused.value)


@given(
    st.text()
    | st.text().map("https://{}".format)
    | st.text().map("https://{}/".format)
    | st.text().map("http://a.{}".format)
)
def test_httpx_reads_the_same_host_from_every_accepted_url(text: str) -> None:
    with suppress(TargetRefused):
        webhook_urls.check(text, allowed_networks=())
        parsed = webhook_urls.parse(text)
        assert httpx.URL(parsed).raw_host.decode() == urlsplit(parsed).hostname
