"""Celery's configuration inside the Flower container, which knows nothing of Waybill."""  # noqa: INP001  # mounted as a file of its own

from pathlib import Path

broker_url = Path("/run/secrets/rabbitmq_url").read_text().strip()

# RabbitMQ 4.3 refuses queues that are neither durable nor exclusive, Celery's default before 5.7.
control_queue_exclusive = True
event_queue_exclusive = True
