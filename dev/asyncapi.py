"""Writes docs/asyncapi.yaml from `schemas.topology` and the events: `python -m dev.asyncapi`.

Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from dev.stack.checkout import CHECKOUT
from pipeline import task_routes
from pipeline.beat import PERIODIC_TASKS
from pipeline.messaging.consumer import PERIODIC_CONTENT_TYPE
from schemas import queues, topology
from schemas.events import catalogue
from schemas.events.endpoints import Ping
from schemas.events.envelope import CONTENT_TYPE, EVENT_TYPES, MAX_BYTES, encode
from schemas.events.examples import example_envelope
from schemas.runtime import amqp
from schemas.runtime.tracing import TRACEPARENT_HEADER

FILE: Final = CHECKOUT / "docs" / "asyncapi.yaml"

HEADER: Final = """\
# Written by `python -m dev.asyncapi` from schemas/topology.py and schemas/events; edit those.
"""

DESCRIPTION: Final = f"""\
Events of Waybill on RabbitMQ. A consumer of your own binds a queue of its own to
`{topology.EVENTS.name}`, with event types as routing keys; the queues below belong to Waybill.

Every message is a CloudEvent in JSON, smaller than {MAX_BYTES // 1024} KiB: ids, keys and sizes, never the
content of a file. Delivery is at least once, and the `message_id` of a repetition is the same: it is
the `id` of the event. Fields may be added to events; ignore those that you do not expect.
"""

BUS_TYPES: Final = tuple(sorted(EVENT_TYPES.keys() - {Ping.TYPE}))
"""Types of events that are messages; a ping is only a webhook."""

PERIODIC: Final = "periodic"
"""The message of a periodic task."""

AMQP_BINDING: Final = "0.3.0"

Node = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Repeats equal parts: anchors are hard to read, and not every tool accepts them."""

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def page() -> str:
    """Return the whole of docs/asyncapi.yaml."""
    return HEADER + yaml.dump(
        document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )


def document() -> Node:
    exchange_channels = {
        event_type: _of_routing_key(event_type)
        for event_type in BUS_TYPES
        if topology.is_published(event_type)
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Waybill's events on the bus",
            "version": "1",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "rabbitmq": {
                "host": "{host}",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "the brokers of `RABBITMQ_URL`",
                "variables": {"host": {"default": "localhost:5672"}},
            }
        },
        "channels": {
            **exchange_channels,
            **{queue.name: _of_queue(queue) for queue in topology.QUEUES},
        },
        "operations": {
            **{f"publish.{name}": _send(name, [name]) for name in exchange_channels},
            **{
                f"release.{queue}": _send(queue, _types_in(queue))
                for queue in topology.WORK_QUEUES
                if _types_in(queue)
            },
            **{f"schedule.{queue}": _send(queue, [PERIODIC]) for queue in topology.PERIODIC_QUEUES},
            **{
                f"consume.{queue}": _receive(queue)
                for queue in (*topology.CONSUMED, *topology.PERIODIC_QUEUES)
                if _types_in(queue)
            },
        },
        "components": {
            "messages": {
                **{event_type: _message(event_type) for event_type in BUS_TYPES},
                PERIODIC: _periodic_message(),
            }
        },
    }


def _of_routing_key(event_type: str) -> Node:
    exchange = topology.EVENTS
    return {
        "address": event_type,
        "title": f"{event_type} of {exchange.name}",
        "description": f"Routing key of the {exchange.kind} exchange `{exchange.name}`.",
        "messages": _references([event_type]),
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {
                    "name": exchange.name,
                    "type": exchange.kind,
                    "durable": True,
                    "autoDelete": False,
                },
                "bindingVersion": AMQP_BINDING,
                "x-arguments": dict(exchange.arguments),
            }
        },
    }


def _of_queue(queue: topology.Queue) -> Node:
    bound = [
        {"exchange": binding.exchange, "routingKey": binding.routing_key}
        for binding in topology.BINDINGS
        if binding.queue == queue.name
    ]
    return {
        "address": queue.name,
        "title": f"Queue {queue.name}",
        "description": _purpose(queue.name),
        "messages": _references(_types_in(queue.name)),
        "bindings": {
            "amqp": {
                "is": "queue",
                "queue": {
                    "name": queue.name,
                    "durable": True,
                    "exclusive": False,
                    "autoDelete": False,
                },
                "bindingVersion": AMQP_BINDING,
                "x-arguments": dict(queue.arguments),
                "x-bindings": bound,
            }
        },
    }


def _types_in(queue: str) -> tuple[str, ...]:
    """Return the names of the messages that a queue may hold."""
    if queue in topology.PERIODIC_QUEUES:
        return (PERIODIC,)
    if queue in topology.SUBSCRIPTIONS:
        return topology.SUBSCRIPTIONS[queue]
    if queue in topology.WORK_QUEUES:
        return tuple(task_routes.TASKS.get(queue, {}))
    if queue == topology.UNROUTED.name:
        return BUS_TYPES
    for consumed in topology.CONSUMED:
        if queue == topology.dead_letter_queue(consumed):
            return _types_in(consumed)
    # What waits in a retry tier is from any work queue.
    return tuple(
        dict.fromkeys(each for consumed in topology.WORK_QUEUES for each in _types_in(consumed))
    )


def _purpose(queue: str) -> str:
    if queue == queues.NOTIFY:
        return "Facts that become webhooks."
    if queue in topology.PERIODIC_QUEUES:
        names = ", ".join(f"`{task.name}`" for task in PERIODIC_TASKS if task.home_queue == queue)
        return f"Periodic tasks: {names}. The oldest message is dropped when the queue is full."
    if queue in topology.WORK_QUEUES:
        tasks = task_routes.TASKS.get(queue, {})
        started = ", ".join(f"`{each}` starts `{task.name}`" for each, task in tasks.items())
        return f"Steps of jobs: {started}." if started else "Steps of jobs; no step uses it yet."
    if queue == topology.UNROUTED.name:
        return "Events that no queue received; `deliver` moves them into the table of dead letters."
    for tier in topology.RETRY_TIERS:
        if queue == tier.name:
            return (
                f"Events that wait {int(tier.delay.total_seconds())} s for their next attempt, then "
                "return to the queue that their routing key names."
            )
    return (
        "Events that the consumer of the queue rejected; `deliver` moves them into the table of "
        "dead letters."
    )


def _send(channel: str, messages: Iterable[str]) -> Node:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
        "bindings": {
            "amqp": {"deliveryMode": 2, "mandatory": True, "bindingVersion": AMQP_BINDING}
        },
    }


def _receive(queue: str) -> Node:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{queue}"},
        "messages": [{"$ref": f"#/channels/{queue}/messages/{name}"} for name in _types_in(queue)],
        "bindings": {"amqp": {"ack": True, "bindingVersion": AMQP_BINDING}},
    }


def _references(messages: Iterable[str]) -> Node:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in messages}


def _message(event_type: str) -> Node:
    envelope = example_envelope(event_type)
    return {
        "name": event_type,
        "title": event_type,
        "description": catalogue.description_of(event_type),
        "contentType": CONTENT_TYPE,
        "headers": _headers(),
        "payload": _draft_07(catalogue.schema_of(event_type)),
        "bindings": {
            "amqp": {
                "contentEncoding": "utf-8",
                "messageType": event_type,
                "bindingVersion": AMQP_BINDING,
            }
        },
        "examples": [
            {
                "name": event_type,
                "headers": {TRACEPARENT_HEADER: _TRACEPARENT},
                "payload": msgspec.json.decode(encode(envelope)),
            }
        ],
        "x-properties": {"message_id": "the `id` of the event", "app_id": amqp.APP_ID},
    }


_TRACEPARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _headers() -> Node:
    count = {"type": "integer", "minimum": 0}
    return {
        "type": "object",
        "properties": {
            TRACEPARENT_HEADER: {
                "type": "string",
                "description": "W3C trace context of the request that caused the event",
            },
            topology.ATTEMPT_HEADER: count | {"description": "attempts at the event so far"},
            topology.CRASHES_HEADER: count
            | {"description": "crashes of workers with the event before its last wait"},
            topology.WAITS_HEADER: count | {"description": "long waits so far"},
        },
    }


def _periodic_message() -> Node:
    return {
        "name": PERIODIC,
        "title": "A periodic task is due",
        "description": "Beat names the task in the header `task`; the rest of the message is Celery's.",
        "contentType": PERIODIC_CONTENT_TYPE,
        "headers": {
            "type": "object",
            "properties": {
                "task": {"type": "string", "enum": [task.name for task in PERIODIC_TASKS]}
            },
            "required": ["task"],
        },
    }


def _draft_07(node: Any) -> Any:  # noqa: ANN401  # a JSON value
    """Return a schema in the draft that every tool for AsyncAPI reads: tuples are written otherwise."""
    if isinstance(node, list):
        return [_draft_07(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    converted = {key: _draft_07(value) for key, value in node.items()}
    if "prefixItems" in converted:
        converted["additionalItems"] = converted.pop("items", True)
        converted["items"] = converted.pop("prefixItems")
    return converted


def write(file: Path = FILE) -> None:
    file.write_text(page())


if __name__ == "__main__":
    write()
