"""Notices that the broker no longer delivers from a queue of the worker."""

from typing import Any

from amqp.exceptions import RecoverableConnectionError
from celery import bootsteps
from celery.worker import state

from schemas.runtime.amqp import SUBSCRIPTION_CHECK, SubscriptionCheck


class SubscriptionLost(RecoverableConnectionError):
    """The broker has no subscription of this worker to a queue.

    Celery then closes the connection, declares the topology and consumes again.
    """

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(f"no subscription to {queue}: {reason}")


class Subscriptions(bootsteps.StartStopStep):
    """Checks at each interval that the worker receives the messages of its queues."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:  # noqa: ANN401  # Celery's own signature
        super().__init__(consumer, **options)
        self._channel: Any = None
        self._timer: Any = None
        self._check = SubscriptionCheck()

    def start(self, consumer: Any) -> None:  # noqa: ANN401  # Celery's own signature
        # A missing queue closes the channel that asks for it.
        self._channel = consumer.connection.channel()
        self._check = SubscriptionCheck()
        self._timer = consumer.timer.call_repeatedly(
            SUBSCRIPTION_CHECK.total_seconds(), self.check, (consumer,)
        )

    def stop(self, consumer: Any) -> None:  # noqa: ANN401, ARG002  # Celery's own signature
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def check(self, consumer: Any) -> None:  # noqa: ANN401  # Celery's own class
        """Check every queue.

        Raises:
            SubscriptionLost: a queue is missing or its messages do not arrive.
        """
        busy = {consumer.queue_of(request.message) for request in tuple(state.reserved_requests)}
        for queue in consumer.task_consumer.queues:
            try:
                declared = self._channel.queue_declare(queue.name, passive=True)
            except consumer.channel_errors as error:
                raise SubscriptionLost(queue.name, "the queue is missing") from error
            reason = self._check.reason(
                queue.name,
                consumers=declared.consumer_count,
                messages=declared.message_count,
                received=consumer.received[queue.name],
                idle=queue.name not in busy,
            )
            if reason is not None:
                raise SubscriptionLost(queue.name, reason)
