"""Something the services stand on, that a test may take away from them."""

import socket
from typing import Protocol

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed


class Killable(Protocol):
    def kill(self) -> None:
        """SIGKILL it; it is started again."""

    def halt(self) -> None:
        """SIGKILL it and leave it down."""

    def start(self) -> None:
        """Start it after `halt` and return once it answers."""


@retry(
    retry=retry_if_exception_type(OSError),
    stop=stop_after_delay(90),
    wait=wait_fixed(0.2),
    reraise=True,
)
def until_it_answers(host: str, port: int) -> None:
    """Return once something listens there."""
    socket.create_connection((host, port), timeout=1).close()
