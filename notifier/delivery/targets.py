"""Where a webhook may go: rules for URLs, and for the addresses their names resolve to.

A URL comes from a tenant and the request leaves from inside our network, so an
address that only we can reach must never be a target (server-side request
forgery). `check_url` judges the text; `allowed` judges what the name resolved
to, at every new connection, which then goes to the judged address and nowhere
else (`transport`).

``http`` is accepted beside ``https``: the signature still proves origin and
content, but anyone on the way can read the event.

Two things cannot be known here and are left to the network the process runs
in: public addresses used internally, and NAT64 under a prefix of one's own.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

import httpx

from schemas.errors import DomainError, ErrorCode

Address: TypeAlias = IPv4Address | IPv6Address

URL_MAX: Final = 2048
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
UNPRIVILEGED_PORTS: Final = range(1024, 65535 + 1)

# Text protocols that would take a POST for commands of their own: the ports
# from 1024 up of https://fetch.spec.whatwg.org/#port-blocking
BLOCKED_PORTS: Final = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566}
    | {*range(6665, 6669 + 1), 6679, 6697, 10080}
)

_HOST_MAX: Final = 253
_HOST: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
# `getaddrinfo` reads 2130706433, 0x7f.1 and 0177.0.0.1 as IPv4 addresses. So
# does the rule of https://url.spec.whatwg.org/#ends-in-a-number-checker
_ENDS_IN_A_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

# Not `ipaddress.is_global`: what it answers changed between patch releases of
# Python, and it says yes to multicast, 6to4 and NAT64.
# https://www.iana.org/assignments/iana-ipv4-special-registry
_CLOSED_IPV4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host; Linux connects 0.0.0.0 to loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; some clouds' metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent, public by number alone
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; one cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # class E and broadcast
    )
)
# https://www.iana.org/assignments/iana-ipv6-special-registry
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_CLOSED_IPV6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo and ORCHID among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: tunnels to any IPv4 address
        "3fff::/20",  # documentation
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")


class TargetRefused(DomainError):
    """A webhook may not go there.

    The message names neither the URL, which may hold a token, nor an address:
    answering what an internal name resolves to would be half of the attack.
    """

    code = ErrorCode.WEBHOOK_URL_REFUSED

    def __init__(self, reason: str) -> None:
        super().__init__(f"webhook target refused: {reason}")


def check_url(url: str) -> httpx.URL:
    """Judge a URL by its text and return it parsed, the host in its ASCII form.

    Accepted: ``http`` or ``https``, a host, port 80, 443 or one from 1024 up
    that no other protocol is known for; no credentials, no fragment.

    Raises:
        TargetRefused: with the rule that was broken.
    """
    if len(url) > URL_MAX:
        raise TargetRefused(f"the URL is longer than {URL_MAX} characters")
    if "\\" in url or any(character.isspace() for character in url):
        # Parsers disagree on where the host ends in such a URL.
        raise TargetRefused("the URL has a backslash or white space")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise TargetRefused("the URL is malformed") from error
    if parsed.scheme not in DEFAULT_PORTS:
        raise TargetRefused("the scheme is not https or http")
    if parsed.userinfo:
        raise TargetRefused("the URL carries credentials")
    if "#" in url:
        raise TargetRefused("the URL has a fragment, which is never sent")
    _check_host(parsed.raw_host.decode("ascii"))
    _check_port(DEFAULT_PORTS[parsed.scheme] if parsed.port is None else parsed.port)
    return parsed


def allowed(addresses: Iterable[str], *, allow_loopback: bool) -> list[Address]:
    """Judge every address a name resolves to; return them parsed, in their order.

    One closed address refuses the name: an honest receiver has none, and
    filtering would let an attacker try until the resolver's order suits him.

    Raises:
        TargetRefused: some address is not a public one.
    """
    parsed = [ip_address(address) for address in addresses]
    for address in parsed:
        if not is_public(address) and not (allow_loopback and is_loopback(address)):
            raise TargetRefused("the host is, or resolves to, an address that is not public")
    return parsed


def is_public(address: Address) -> bool:
    """Whether an address is one anybody on the Internet could reach as well as we can."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_IPV4)
    carried = _carried_ipv4(address)
    if carried is not None:
        return is_public(carried)
    return address in _GLOBAL_UNICAST and not any(address in network for network in _CLOSED_IPV6)


def is_loopback(address: Address) -> bool:
    carried = _carried_ipv4(address) if isinstance(address, IPv6Address) else None
    return (carried or address).is_loopback


def _carried_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address a packet to this one would end at, where that is certain.

    Other forms that carry one (6to4, Teredo, IPv4-compatible) are closed whole.
    """
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped


def _check_host(host: str) -> None:
    if not host:
        raise TargetRefused("the URL names no host")
    try:
        literal = ip_address(host)
    except ValueError:
        literal = None
    if isinstance(literal, IPv6Address) and literal.scope_id is not None:
        raise TargetRefused("the host is an address of one network interface")
    if literal is not None:
        return
    if len(host) > _HOST_MAX or not _HOST.fullmatch(host):
        raise TargetRefused("the host is malformed")
    if _ENDS_IN_A_NUMBER.fullmatch(host):
        raise TargetRefused("the host is an address in a disguised form")


def _check_port(port: int) -> None:
    if port not in DEFAULT_PORTS.values() and port not in UNPRIVILEGED_PORTS:
        raise TargetRefused(f"port {port} is not 80, 443 or one from 1024 up")
    if port in BLOCKED_PORTS:
        raise TargetRefused(f"port {port} belongs to another protocol")
