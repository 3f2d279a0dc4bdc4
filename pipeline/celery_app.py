"""The Celery application and its configuration."""

import os
import socket
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from celery.app.amqp import AMQP

from pipeline.context import PIPELINE
from pipeline.messaging.broker import work_queue
from pipeline.messaging.consumer import SERIALIZER, register_serializer
from pipeline.messaging.liveness import Liveness
from pipeline.messaging.subscriptions import Subscriptions
from pipeline.settings import Settings
from schemas import queues, topology
from schemas.runtime import amqp

SOFT_LIMIT_MARGIN: Final = timedelta(minutes=1)


class NamedSubscriptions(AMQP):
    """Gives the consumers of a worker a legible tag; the number keeps the tags of a channel apart."""

    def TaskConsumer(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401, N802  # Celery's own signature
        owner = f"{name_of(self.app)}@{socket.gethostname()}:{os.getpid()}"
        return super().TaskConsumer(*args, tag_prefix=f"{owner}/", **options)


app = Celery("pipeline", amqp=NamedSubscriptions)


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration; each comment names the failure that a setting prevents."""
    time_limit = settings.task_time_limit.total_seconds()
    brokers = amqp.in_random_order(settings.rabbitmq_urls)
    return {
        "worker_consumer": "pipeline.messaging.consumer:EventConsumer",
        # Celery prefers CELERY_BROKER_URL, unparsed, to `broker_url`, but not to these two.
        "broker_read_url": brokers,
        "broker_write_url": brokers,
        "task_queues": [
            work_queue(name)
            for name in (*topology.CONSUMED, *topology.PERIODIC_QUEUES)
            if name != queues.NOTIFY
        ],
        # The stock scheduler writes its schedule to a file; the containers are read-only.
        "beat_scheduler": "pipeline.beat:BeatScheduler",
        "task_default_queue": queues.UPLOADS,
        "task_default_exchange": "",
        "task_default_routing_key": queues.UPLOADS,
        # A queue misspelt with -Q must be an error, not a new empty queue.
        "task_create_missing_queues": False,
        "accept_content": ["json", SERIALIZER],
        # Remote control uses the task serializer; with cloudevents `inspect` breaks.
        "task_serializer": "json",
        "result_backend": (
            settings.celery_result_backend.get_secret_value()
            if settings.celery_result_backend
            else None
        ),
        # A job's state is its row; results exist only for users of Flower.
        "task_ignore_result": settings.celery_result_backend is None,
        # With an early acknowledgement, an event would be lost when its worker dies.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_failure_or_timeout": False,
        # One PDF may take minutes: prefetched short jobs would wait behind it.
        "worker_prefetch_multiplier": 1,
        "worker_detect_quorum_queues": True,
        # After a lost connection the broker redelivers the message: the task would run twice.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        # Without confirms a retry that is published to a dying broker is lost without an error.
        "broker_transport_options": {
            "confirm_publish": True,
            "client_properties": amqp.client_properties(PIPELINE),
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_heartbeat": int(amqp.HEARTBEAT.total_seconds()),
        # A broken channel ends the worker, and its supervisor starts a new one.
        "broker_channel_error_retry": False,
        "task_time_limit": time_limit,
        "task_soft_time_limit": max(time_limit - SOFT_LIMIT_MARGIN.total_seconds(), time_limit / 2),
        # A child that takes longer to start is killed, and so is every child after it.
        "worker_proc_alive_timeout": 300,
        "worker_enable_remote_control": settings.celery_remote_control,
        "worker_send_task_events": settings.celery_remote_control,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "waybill_process": settings,
        "waybill_task_attempts": settings.task_attempts,
        "waybill_publish_timeout": settings.publish_timeout,
    }


def configure(settings: Settings) -> None:
    """Apply the settings; register tasks afterwards."""
    register_serializer()
    app.conf.update(configuration(settings))
    app.steps["consumer"].update((Liveness, Subscriptions))


def name_of(celery: Celery) -> str:
    """Return the name of this process, as its connections and consumers have it."""
    name: str = celery.conf.broker_transport_options["client_properties"]["connection_name"]
    return name


def name_connections(celery: Celery, *, role: str) -> None:
    """Add the role of this process to the name of its connections to the broker.

    Otherwise the management UI shows the same name for every worker and for beat.
    """
    options: dict[str, Any] = celery.conf.broker_transport_options
    celery.conf.broker_transport_options = {
        **options,
        "client_properties": amqp.client_properties(f"{PIPELINE}-{role}"),
    }
