"""The check of a worker's subscriptions, on a scripted channel."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.exceptions import NotFound
from celery.worker import state

from pipeline.messaging.subscriptions import SubscriptionLost, Subscriptions


class Channel:
    """Answers a passive declaration of the queue."""

    def __init__(self) -> None:
        self.consumers = 1
        self.messages = 0
        self.exists = True

    def queue_declare(self, queue: str, *, passive: bool) -> SimpleNamespace:
        assert (queue, passive) == ("uploads", True)
        if not self.exists:
            raise NotFound
        return SimpleNamespace(consumer_count=self.consumers, message_count=self.messages)


class Worker:
    def __init__(self) -> None:
        self.channel = Channel()
        self._consumer: Any = SimpleNamespace(
            connection=SimpleNamespace(channel=lambda: self.channel),
            timer=SimpleNamespace(call_repeatedly=lambda *_: None),
            task_consumer=SimpleNamespace(queues=[SimpleNamespace(name="uploads")]),
            channel_errors=(NotFound,),
        )
        self._step = Subscriptions(self._consumer)
        self._step.start(self._consumer)

    def check(self) -> None:
        self._step.check(self._consumer)


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> set[object]:
    """The messages that the worker holds."""
    held: set[object] = set()
    monkeypatch.setattr(state, "reserved_requests", held)
    return held


@pytest.fixture(autouse=True)
def received() -> Iterator[list[int]]:
    """The number of messages that the worker received, in a list of one."""
    before = state.all_total_count[0]
    yield state.all_total_count
    state.all_total_count[0] = before


def test_a_queue_without_a_consumer_is_a_lost_subscription(worker: Worker) -> None:
    worker.check()
    worker.channel.consumers = 0
    with pytest.raises(SubscriptionLost, match="uploads: the queue has no consumer"):
        worker.check()


def test_a_missing_queue_is_a_lost_subscription(worker: Worker) -> None:
    worker.channel.exists = False
    with pytest.raises(SubscriptionLost, match="uploads: the queue is missing"):
        worker.check()


def test_messages_that_wait_for_an_idle_worker_are_a_lost_subscription(worker: Worker) -> None:
    worker.channel.messages = 3
    worker.check()
    with pytest.raises(SubscriptionLost, match="messages wait while the worker is idle"):
        worker.check()


def test_messages_may_wait_for_a_busy_worker(worker: Worker, requests: set[object]) -> None:
    worker.channel.messages = 3
    requests.add("a request")
    for _ in range(3):
        worker.check()


def test_messages_may_wait_for_a_worker_that_receives_messages(
    worker: Worker, received: list[int]
) -> None:
    worker.channel.messages = 3
    for _ in range(3):
        worker.check()
        received[0] += 1


def test_a_queue_that_was_empty_in_between_is_not_lost(worker: Worker) -> None:
    for messages in (3, 0, 3, 0):
        worker.channel.messages = messages
        worker.check()
