"""Rules for the URLs of webhooks and for the addresses that their hosts resolve to.

A tenant chooses the URL, and the operator's network sends the request. An address that is reachable
only in that network is therefore no target (server-side request forgery), unless the operator
allows its network. Registration calls `check`; a delivery calls `parse`, then `check_addresses` for
every new connection, which is opened only to a checked address.

``http`` is accepted as well as ``https``. The signature proves origin and content, but without
``https`` everybody on the network path can read the event.

Two cases cannot be recognised here, so the network of the process must block them: public addresses
in internal use, and NAT64 under a prefix of the operator.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

import idna

from schemas.errors import DomainError, ErrorCode

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

URL_MAX: Final = 2048
ADDRESSES_MAX: Final = 1024
"""Addresses of a host; a server of names can return ten times as many, and each costs CPU time."""

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
FIRST_UNPRIVILEGED_PORT: Final = 1024

# Ports of text protocols that would read a POST as commands: those from 1024 up
# of https://fetch.spec.whatwg.org/#port-blocking
BLOCKED_PORTS: Final = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566}
    | {*range(6665, 6669 + 1), 6679, 6697, 10080}
)

_HOST_MAX: Final = 253
_LABEL_MAX: Final = 63
_LABEL: Final = re.compile(r"[a-z0-9_-]+")
# `getaddrinfo` reads 2130706433, 0x7f.1 and 0177.0.0.1 as IPv4 addresses, as does
# https://url.spec.whatwg.org/#ends-in-a-number-checker
_ENDS_IN_A_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

# Not `ipaddress.is_global`: its answers changed between patch releases of Python,
# and it is true for multicast, 6to4 and NAT64.
# https://www.iana.org/assignments/iana-ipv4-special-registry
_FORBIDDEN_IPV4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host; Linux connects 0.0.0.0 to loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; some clouds' metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent; the number alone is public
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
_FORBIDDEN_IPV6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo and ORCHID among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: tunnels to any IPv4 address
        "3fff::/20",  # documentation
    )
)


def _ranges(networks: Iterable[Network]) -> tuple[tuple[int, int], ...]:
    return tuple(
        (int(network.network_address), int(network.broadcast_address)) for network in networks
    )


# Compared as numbers: a host may have a thousand addresses, and a delivery checks all of them.
_FORBIDDEN_IPV4_RANGES: Final = _ranges(_FORBIDDEN_IPV4)
_FORBIDDEN_IPV6_RANGES: Final = _ranges(_FORBIDDEN_IPV6)

_NAT64: Final = IPv6Network("64:ff9b::/96")

# The metadata services of clouds give out the credentials of the machine: to allow a private network
# is not to allow them.
_NEVER_ALLOWED: Final = (
    IPv4Network("169.254.0.0/16"),
    IPv4Network("168.63.129.16/32"),
    IPv4Network("100.100.100.200/32"),
    IPv4Network("192.0.0.192/32"),
    IPv6Network("fe80::/10"),
    IPv6Network("fd00:ec2::/32"),
    IPv6Network("fd20:ce::/32"),
)


class TargetRefused(DomainError):
    """The rules forbid this target.

    The message contains neither the URL, which may hold a token, nor an
    address: the address of an internal name would help an attacker.
    """

    code = ErrorCode.WEBHOOK_URL_REFUSED

    def __init__(self, reason: str) -> None:
        super().__init__(f"webhook target refused: {reason}")


def check(url: str, *, allowed_networks: Sequence[Network]) -> None:
    """Check a target at its registration: the text of the URL, and a host that is an address.

    Args:
        url: as the tenant sent it.
        allowed_networks: see `check_addresses`.

    Raises:
        TargetRefused: with the rule that is broken.
    """
    host = urlsplit(parse(url)).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        host = "127.0.0.1"
    if address_of(host) is not None:
        check_addresses([host], allowed_networks=allowed_networks)


def parse(url: str) -> str:
    """Check the text of a URL; return it with its host as a request needs it.

    Accepted: ``http`` or ``https``, a host, port 80, 443 or one from 1024 up
    that belongs to no other protocol; no credentials, no fragment.

    The returned host is in ASCII (IDNA 2008), in lower case, and without a
    final dot, which neither SNI nor a certificate has.

    Raises:
        TargetRefused: with the rule that is broken.
    """
    if not url:
        raise TargetRefused("the URL is empty")
    if len(url) > URL_MAX:
        raise TargetRefused(f"the URL is longer than {URL_MAX} characters")
    if "\\" in url or not url.isprintable() or any(character.isspace() for character in url):
        # Parsers disagree on where the host of such a URL ends.
        raise TargetRefused("the URL has a backslash, white space or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetRefused("the URL is malformed") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise TargetRefused("the scheme is not https or http")
    if "@" in parts.netloc:
        raise TargetRefused("the URL carries credentials")
    if "#" in url:
        raise TargetRefused("the URL has a fragment, which is never sent")
    host = _checked_host(parts)
    netloc = f"[{host}]" if ":" in host else host
    if port is not None:
        _check_port(port)
        netloc += f":{port}"
    rest = url.partition("//")[2].removeprefix(parts.netloc)
    return f"{parts.scheme}://{netloc}{rest}"


def check_addresses(
    addresses: Iterable[str], *, allowed_networks: Sequence[Network]
) -> list[Address]:
    """Check every address of a host; return them parsed, in their order.

    One forbidden address refuses the whole host: an honest receiver has no such address, and if
    only that address were skipped, an attacker could repeat the request until another order of the
    addresses succeeds.

    Args:
        addresses: of the host.
        allowed_networks: networks that are allowed although they are not public
            (`WebhookTargetSettings.webhook_allowed`).

    Raises:
        TargetRefused: an address is not public, or there are more than `ADDRESSES_MAX`.
    """
    addresses = list(addresses)
    if len(addresses) > ADDRESSES_MAX:
        raise TargetRefused(f"the host has more than {ADDRESSES_MAX} addresses")
    parsed = [ip_address(address) for address in addresses]
    for address in parsed:
        if not is_public(address) and not _is_allowed(address, allowed_networks):
            raise TargetRefused("the host is, or resolves to, an address that is not public")
    return parsed


def address_of(host: str) -> Address | None:
    """Return the host as an address; None if the host is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Return whether the address is the same host for the whole Internet."""
    number = int(address)
    if isinstance(address, IPv4Address):
        return not any(first <= number <= last for first, last in _FORBIDDEN_IPV4_RANGES)
    carried = _carried_ipv4(address)
    if carried is not None:
        return is_public(carried)
    return address in _GLOBAL_UNICAST and not any(
        first <= number <= last for first, last in _FORBIDDEN_IPV6_RANGES
    )


def _is_allowed(address: Address, networks: Sequence[Network]) -> bool:
    carried = _carried_ipv4(address) if isinstance(address, IPv6Address) else None
    target = carried or address
    return any(target in network for network in networks) and not any(
        target in network for network in _NEVER_ALLOWED
    )


def _carried_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address to which a packet to this address is translated, if it is known.

    All other addresses that contain an IPv4 address (6to4, Teredo, IPv4-compatible) are forbidden.
    """
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped


def _checked_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host:
        raise TargetRefused("the URL names no host")
    address = address_of(host)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise TargetRefused("the host is an address of one network interface")
    # Brackets hold an IPv6 address and nothing else, in all versions of `urlsplit`.
    if ("[" in parts.netloc) != isinstance(address, IPv6Address):
        raise TargetRefused("the host is malformed")
    if address is not None:
        return host
    host = _ascii(host).removesuffix(".")
    if _ENDS_IN_A_NUMBER.fullmatch(host):
        raise TargetRefused("the host is an address in a disguised form")
    _check_name(host)
    return host


def _check_name(host: str) -> None:
    if len(host) > _HOST_MAX:
        raise TargetRefused(f"the host is malformed: it is longer than {_HOST_MAX} characters")
    for label in host.split("."):
        if not label:
            raise TargetRefused("the host is malformed: a part between dots is empty")
        if len(label) > _LABEL_MAX:
            raise TargetRefused(
                f"the host is malformed: a part between dots is longer than {_LABEL_MAX} characters"
            )
        if label.startswith("-") or label.endswith("-"):
            raise TargetRefused(
                "the host is malformed: a part between dots begins or ends with a hyphen"
            )
        if not _LABEL.fullmatch(label):
            raise TargetRefused(
                "the host is malformed: it has a character other than letters, digits, "
                "hyphens and underscores"
            )


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return idna.encode(host).decode("ascii")
    except idna.IDNAError as error:
        raise TargetRefused("the host is malformed: IDNA 2008 does not allow it") from error


def _check_port(port: int) -> None:
    if port not in DEFAULT_PORTS.values() and port < FIRST_UNPRIVILEGED_PORT:
        raise TargetRefused(f"port {port} is not 80, 443 or one from 1024 up")
    if port in BLOCKED_PORTS:
        raise TargetRefused(f"port {port} belongs to another protocol")
