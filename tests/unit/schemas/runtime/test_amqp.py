import pytest

from schemas.runtime.amqp import SubscriptionCheck, in_random_order

IDLE = "messages wait while the consumer is idle"


@pytest.fixture
def check() -> SubscriptionCheck:
    return SubscriptionCheck()


def reason(
    check: SubscriptionCheck,
    *,
    consumers: int = 1,
    messages: int = 0,
    received: int = 0,
    idle: bool = True,
) -> str | None:
    return check.reason(
        "uploads", consumers=consumers, messages=messages, received=received, idle=idle
    )


def test_a_queue_without_a_consumer_is_a_lost_subscription(check: SubscriptionCheck) -> None:
    assert reason(check, consumers=1) is None
    assert reason(check, consumers=0) == "the queue has no consumer"


def test_messages_that_wait_twice_for_an_idle_consumer_are_a_lost_subscription(
    check: SubscriptionCheck,
) -> None:
    assert reason(check, messages=3) is None
    assert reason(check, messages=3) == IDLE


def test_messages_may_wait_for_a_busy_consumer(check: SubscriptionCheck) -> None:
    for idle in (False, False, True, False, True):
        assert reason(check, messages=3, idle=idle) is None
    assert reason(check, messages=3) == IDLE


def test_messages_may_wait_for_a_consumer_that_receives_messages(check: SubscriptionCheck) -> None:
    for received in range(3):
        assert reason(check, messages=3, received=received) is None


def test_a_queue_that_was_empty_in_between_is_not_lost(check: SubscriptionCheck) -> None:
    for messages in (3, 0, 3, 0):
        assert reason(check, messages=messages) is None


def test_another_queue_does_not_count(check: SubscriptionCheck) -> None:
    for queue in ("uploads", "maintenance"):
        assert check.reason(queue, consumers=1, messages=3, received=0, idle=True) is None


def test_processes_try_the_brokers_in_different_orders() -> None:
    urls = ("amqp://one/", "amqp://two/")
    orders = {tuple(in_random_order(urls)) for _ in range(100)}
    assert orders == {urls, urls[::-1]}
