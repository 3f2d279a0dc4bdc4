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


SUBSCRIPTION_CHECK: Final = timedelta(seconds=10)
"""Interval between two checks that a consumer receives the messages of its queues.

RabbitMQ 3.10 sends no cancellation if a queue is deleted and declared again within
milliseconds: it drops the consumer, or counts messages as delivered that it does not send. The
messages return when the channel closes.
"""


class SubscriptionCheck:
    """Decides from the counts of a queue whether the broker has lost a subscription to it."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}

    def reason(
        self, queue: str, *, consumers: int, messages: int, received: int, idle: bool
    ) -> str | None:
        """Return why the subscription is lost; None if it is not.

        The count of consumers includes those of other processes. Two checks in a row show that
        this process receives nothing: messages wait at both, while it has nothing to do.

        Args:
            queue: the name of the queue.
            consumers: the consumers of the queue.
            messages: the messages that wait in the queue.
            received: the messages that this process has received from the queue so far.
            idle: whether this process has no message of the queue in progress.
        """
        if consumers == 0:
            return "the queue has no consumer"
        before = self._waiting.pop(queue, None)
        if messages and idle:
            if before == received:
                return "messages wait while the consumer is idle"
            self._waiting[queue] = received
        return None


class TopologyConflict(Exception):
    """An exchange or queue of this name exists with other arguments, which the broker keeps."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} exists with other arguments ({reason}); delete or rename it")
