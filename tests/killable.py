"""A process of the infrastructure that a test may kill."""

import socket
from typing import Protocol

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed


class Killable(Protocol):
    def kill(self) -> None:
        """SIGKILL the process; it starts again."""

    def halt(self) -> None:
        """SIGKILL the process and leave it down."""

    def start(self) -> None:
        """Start the process after `halt` and return once it answers."""


@retry(
    retry=retry_if_exception_type(OSError),
    stop=stop_after_delay(90),
    wait=wait_fixed(0.2),
    reraise=True,
)
def await_listener(host: str, port: int) -> None:
    """Return once the port accepts connections."""
    socket.create_connection((host, port), timeout=1).close()
