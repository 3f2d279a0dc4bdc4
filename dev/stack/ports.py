"""Free ports of 127.0.0.1."""

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from dev.stack.errors import NoFreePort

FIRST: Final = 20_000
# Linux uses ports from 32768 for outgoing connections: such a port could be taken between
# this check and the start of its server.
LAST: Final = 29_999
ATTEMPTS: Final = 1_000


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As for servers: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def choose(
    names: Iterable[str],
    *,
    preferred: Mapping[str, int],
    is_free: Callable[[int], bool],
    random_below: Callable[[int], int],
) -> dict[str, int]:
    """Return a free port for every name, if possible the preferred port.

    Raises:
        NoFreePort: none was found in a thousand random tries.
    """
    chosen: dict[str, int] = {}
    for name in names:
        wanted = preferred.get(name)
        if wanted is not None and wanted not in chosen.values() and is_free(wanted):
            chosen[name] = wanted
        else:
            taken = {*chosen.values(), *preferred.values()}
            chosen[name] = _random_port(taken, is_free=is_free, random_below=random_below)
    return chosen


def _random_port(
    taken: set[int], *, is_free: Callable[[int], bool], random_below: Callable[[int], int]
) -> int:
    for _ in range(ATTEMPTS):
        port = FIRST + random_below(LAST - FIRST + 1)
        if port not in taken and is_free(port):
            return port
    raise NoFreePort(first=FIRST, last=LAST)
