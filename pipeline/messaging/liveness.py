"""A file whose age shows a supervisor whether the worker still consumes."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from celery import bootsteps

if TYPE_CHECKING:
    from schemas.settings import LivenessSettings

# Also bounds how long an idle worker takes to stop: its loop sleeps until its next timer.
INTERVAL: Final = timedelta(seconds=1)


class Liveness(bootsteps.StartStopStep):
    """Touches the file from the worker's event loop while its consumer runs.

    A worker that has lost the broker, or whose loop hangs, does not touch the file.
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
