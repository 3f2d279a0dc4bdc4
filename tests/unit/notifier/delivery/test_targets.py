from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.delivery import targets
from notifier.delivery.targets import TargetRefused
from schemas.errors import ErrorCode

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
NOT_PUBLIC = [
    # this host
    "0.0.0.0",  # noqa: S104  # an address to refuse, not to listen on
    "0.1.2.3",
    "127.0.0.1",
    "127.1.2.3",
    "127.255.255.255",
    "::",
    "::1",
    # private
    "10.0.0.0",
    "10.254.0.0",
    "172.16.10.65",
    "172.31.255.255",
    "192.168.10.65",
    "fc00::1",
    "fd12:3456:789a::1",
    # link-local, and the clouds' metadata
    "169.254.0.1",
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fd00:ec2::254",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    # shared, special, documentation, benchmarks
    "100.64.0.0",
    "100.127.255.255",
    "192.0.0.0",
    "192.0.0.255",
    "192.0.2.255",
    "192.88.99.1",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.65",
    "203.0.113.6",
    "2001:db8::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "3fff::1",
    "100::1",
    "5f00::1",
    "fec0::1",
    # multicast, class E, broadcast
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "250.10.20.30",
    "255.255.255.255",
    "ff02::1",
    "ff0e::1",
    # IPv4 inside IPv6
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.1",
    "::ffff:7f00:1",
    "::127.0.0.1",  # IPv4-compatible
    "::8.8.8.8",
    "::ffff:0:127.0.0.1",  # IPv4-translated
    "64:ff9b::127.0.0.1",  # NAT64
    "64:ff9b::10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",  # NAT64 of somebody's own
    "2002:7f00:1::1",  # 6to4
    "2002:808:808::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert targets.allowed([address], allow_loopback=False) == [ip_address(address)]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_only_we_can_reach_is_refused(address: str) -> None:
    with pytest.raises(TargetRefused) as caught:
        targets.allowed([address], allow_loopback=False)
    assert caught.value.code is ErrorCode.WEBHOOK_URL_REFUSED
    assert address not in str(caught.value)


def test_one_address_that_is_not_public_refuses_the_name() -> None:
    with pytest.raises(TargetRefused):
        targets.allowed(["93.184.216.34", "10.0.0.1"], allow_loopback=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_allowed_where_it_is_asked_for(address: str) -> None:
    assert targets.allowed([address], allow_loopback=True) == [ip_address(address)]


@pytest.mark.parametrize(
    "address", [address for address in NOT_PUBLIC if not targets.is_loopback(ip_address(address))]
)
def test_allowing_loopback_allows_nothing_else(address: str) -> None:
    with pytest.raises(TargetRefused):
        targets.allowed([address], allow_loopback=True)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
@example(ip_address("64:ff9b::7f00:1"))
def test_nothing_the_standard_library_knows_as_special_is_public(
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
        assert not targets.is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/hooks/1?token=a%20b",
        "http://example.com:80/",
        "https://example.com:8443/",
        "https://sub-domain.ex_ample.co.uk/",
        "HTTPS://EXAMPLE.COM/",
        "https://1and1.com/",
        "https://93.184.216.34/",
        "https://[2001:4860:4860::8888]:8443/",
        "http://localhost:9000/",
    ],
)
def test_an_ordinary_url_is_accepted(url: str) -> None:
    assert targets.check_url(url).host


def test_an_international_name_is_put_in_its_ascii_form() -> None:
    assert targets.check_url("https://bücher.example/").raw_host == b"xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "scheme"),
        ("example.com/hook", "scheme"),
        ("ftp://example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://example.com:70/_x", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("https://", "no host"),
        ("https:///hook", "no host"),
        ("https://user@example.com/", "credentials"),
        ("https://user:password@example.com/", "credentials"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com#", "fragment"),
        ("https://example.com\\@10.0.0.1/", "backslash"),
        ("https://exa mple.com/", "white space"),
        ("https://example.com/\r\nx-injected: 1", "white space"),
        (" https://example.com/", "white space"),
        ("https://example.com/\x00", "malformed"),
        ("https://exam\x00ple.com/", "malformed"),
        ("https://example.com:70000/", "port 70000"),
        ("https://example.com:port/", "malformed"),
        ("https://[::1/", "malformed"),
        ("https://-example.com/", "malformed"),
        ("https://example..com/", "malformed"),
        ("https://.example.com/", "malformed"),
        ("https://example.com./", "malformed"),
        ("https://exam%70le.com/", "malformed"),
        ("https://" + "a" * 64 + ".com/", "malformed"),
        ("https://" + "a." * 130 + "com/", "malformed"),
        ("https://☃️🛰.example/", "malformed"),
        ("https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/", "malformed"),
        ("https://[fe80::1%25eth0]/", "one network interface"),
        ("http://2130706433/", "disguised"),
        ("http://0x7f000001/", "disguised"),
        ("http://0x7f.1/", "disguised"),
        ("http://0177.1/", "disguised"),
        ("http://127.1/", "disguised"),
        ("http://127.0.0.0x1/", "disguised"),
        ("http://0177.0.0.1/", "malformed"),
        ("http://127.0.0.256/", "malformed"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:22/", "port 22"),
        ("https://example.com:25/", "port 25"),
        ("https://example.com:1023/", "port 1023"),
        ("https://example.com:2049/", "port 2049"),
        ("https://example.com:6667/", "port 6667"),
        ("https://example.com/" + "a" * 2048, "longer than 2048"),
    ],
)
def test_a_url_that_breaks_a_rule_is_refused_with_the_rule(url: str, rule: str) -> None:
    with pytest.raises(TargetRefused, match=rule):
        targets.check_url(url)


def test_a_refusal_does_not_repeat_the_url() -> None:
    with pytest.raises(TargetRefused) as caught:
        targets.check_url("https://user:hunter2@example.com/?token=hunter2")
    assert "hunter2" not in str(caught.value)


@given(st.text() | st.text().map("https://{}/".format) | st.text().map("http://a.{}".format))
def test_any_text_is_either_a_url_with_a_host_or_refused(text: str) -> None:
    try:
        url = targets.check_url(text)
    except TargetRefused:
        return
    assert url.raw_host
