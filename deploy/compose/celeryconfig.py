"""Celery's configuration of the Flower container, which contains no Waybill code."""  # noqa: INP001  # mounted as a single file

import re
from pathlib import Path

broker_url = re.split(
    r"[,;]\s*(?=amqps?://)", Path("/run/secrets/rabbitmq_url").read_text().strip(" ,;\n")
)

# RabbitMQ 4.3 refuses queues that are neither durable nor exclusive, Celery's default before 5.7.
control_queue_exclusive = True
event_queue_exclusive = True
