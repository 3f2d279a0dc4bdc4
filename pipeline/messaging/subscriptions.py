"""Notices that the broker no longer delivers from a queue of the worker."""

from datetime import timedelta
from typing import Any, Final

from amqp.exceptions import RecoverableConnectionError
from celery import bootsteps
from celery.worker import state

INTERVAL: Final = timedelta(seconds=10)


class SubscriptionLost(RecoverableConnectionError):
    """The broker has no subscription of this worker to a queue.

    Celery then closes the connection, declares the topology and consumes again.
    """

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(f"no subscription to {queue}: {reason}")


class Subscriptions(bootsteps.StartStopStep):
    """Checks at each interval that the worker receives the messages of its queues.

    RabbitMQ 3.10 sends no cancellation if a queue is deleted and declared again within
    milliseconds: the connection stays open, and the worker waits for ever.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:  # noqa: ANN401  # Celery's own signature
        super().__init__(consumer, **options)
        self._channel: Any = None
        self._timer: Any = None
        self._waiting: dict[str, int] = {}

    def start(self, consumer: Any) -> None:  # noqa: ANN401  # Celery's own signature
        # A missing queue closes the channel that asks for it.
        self._channel = consumer.connection.channel()
        self._waiting.clear()
        self._timer = consumer.timer.call_repeatedly(
            INTERVAL.total_seconds(), self.check, (consumer,)
        )

    def stop(self, consumer: Any) -> None:  # noqa: ANN401, ARG002  # Celery's own signature
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def check(self, consumer: Any) -> None:  # noqa: ANN401  # Celery's own class
        """Check every queue.

        Raises:
            SubscriptionLost: a queue is missing, has no consumer, or had waiting messages at two
                checks in a row while the worker was idle and received nothing.
        """
        for queue in consumer.task_consumer.queues:
            try:
                declared = self._channel.queue_declare(queue.name, passive=True)
            except consumer.channel_errors as error:
                raise SubscriptionLost(queue.name, "the queue is missing") from error
            if declared.consumer_count == 0:
                raise SubscriptionLost(queue.name, "the queue has no consumer")
            received = state.all_total_count[0]
            if declared.message_count == 0 or state.reserved_requests:
                self._waiting.pop(queue.name, None)
            elif self._waiting.get(queue.name) == received:
                raise SubscriptionLost(queue.name, "messages wait while the worker is idle")
            else:
                self._waiting[queue.name] = received
