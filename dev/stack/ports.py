"""Free ports of 127.0.0.1."""

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from dev.stack.errors import NoFreePort

FIRST: Final = 20_000
# Linux hands out 32768 and up to outgoing connections: a port from there could be taken
# between the moment it was found free and the moment its server listens.
LAST: Final = 29_999
ATTEMPTS: Final = 1_000


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT counts as free.
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
    """Return a port for every name, the preferred one where it is still free.

    Raises:
        NoFreePort: a thousand random tries found none.
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
