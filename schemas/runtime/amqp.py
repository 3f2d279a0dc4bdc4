"""What all connections to RabbitMQ have in common, whichever library opens them."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

HEARTBEAT: Final = timedelta(seconds=30)
"""A peer that vanished is noticed after at most three heartbeats."""

APP_ID: Final = "waybill"
"""The publisher, as every message names it."""


def client_properties(name: str) -> dict[str, Any]:
    """Return the properties of a client; the management UI lists the connection by `name`."""
    return {"connection_name": name}


def in_random_order(urls: Sequence[str]) -> list[str]:
    """Return the URLs of the brokers in the order in which this process tries them.

    A random order spreads the processes over the brokers, at their start and after the loss of one.
    """
    return random.sample(urls, k=len(urls))


class TopologyConflict(Exception):
    """An exchange or queue of this name exists with other arguments, which the broker keeps."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} exists with other arguments ({reason}); delete or rename it")
