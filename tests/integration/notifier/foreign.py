"""A foreign publisher, with a library that writes no id and encodes any property."""

from urllib.parse import unquote

import amqp
from yarl import URL

from schemas.events.envelope import CONTENT_TYPE
from schemas.settings import BrokerSettings


def publish(broker: BrokerSettings, queue: str, body: bytes, **properties: object) -> None:
    """Publish to one queue."""
    url = URL(broker.rabbitmq_url.get_secret_value())
    with amqp.Connection(
        f"{url.host}:{url.port}",
        userid=url.user or "",
        password=url.password or "",
        virtual_host=unquote(url.path[1:]) or "/",
        confirm_publish=True,
    ) as connection:
        channel = connection.channel()
        message = amqp.Message(body, content_type=CONTENT_TYPE, **properties)
        channel.basic_publish(message, routing_key=queue)
