"""A file whose age tells a supervisor whether the worker still consumes, or the clock still ticks."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog
from celery import bootsteps
from celery.beat import Scheduler

from schemas import topology

if TYPE_CHECKING:
    from schemas.settings import LivenessSettings

log = structlog.stdlib.get_logger(__name__)

# Also how soon an idle worker notices that it is to stop: its loop sleeps until its next timer.
INTERVAL: Final = timedelta(seconds=1)
TICK: Final = timedelta(seconds=5)


class Liveness(bootsteps.StartStopStep):
    """Touches the file from the worker's event loop while its consumer runs.

    A worker that lost the broker, or whose loop hangs, stops touching it.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:  # noqa: ANN401  # Celery's own signature
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:  # noqa: ANN401  # Celery's own signature
        settings: LivenessSettings = consumer.app.conf["waybill_process"]
        file = settings.liveness_file
        if file is None:
            return
        file.touch()
        self._timer = consumer.timer.call_repeatedly(INTERVAL.total_seconds(), file.touch)

    def stop(self, consumer: Any) -> None:  # noqa: ANN401, ARG002  # Celery's own signature
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Clock(Scheduler):
    """Beat's scheduler, which touches the file at every tick that finds the broker answering.

    It keeps its schedule in memory: each order is due at once when beat starts,
    and what beat forgets when it ends is at most one interval old.
    """

    max_interval = TICK.seconds

    def tick(self, *args: Any, **kwargs: Any) -> float:  # noqa: ANN401  # Celery's own signature
        wait: float = super().tick(*args, **kwargs)
        if wait > 0:
            self._show_life()
        return wait

    def _show_life(self) -> None:
        settings: LivenessSettings = self.app.conf["waybill_process"]
        if settings.liveness_file is None:
            return
        connection = self.connection
        try:
            # Beat itself speaks to the broker only when an order is due.
            channel: Any = self.producer.channel  # its stubs know only what all transports share
            channel.queue_declare(topology.MAINTENANCE, passive=True)
        except (*connection.connection_errors, *connection.channel_errors) as error:
            log.warning("clock.broker_lost", reason=type(error).__name__)
            self.close()  # the next tick connects anew
            return
        settings.liveness_file.touch()
