"""The topology of the broker, declared by the pipeline, and Celery's view of its queues."""

from typing import Any

import structlog
from amqp.exceptions import PreconditionFailed
from kombu import Connection, Exchange, Queue

from schemas import topology
from schemas.runtime.amqp import TopologyConflict

log = structlog.stdlib.get_logger(__name__)


def ensure_topology(connection: Connection) -> None:
    """Declare the topology, however often the connection is lost meanwhile.

    A broker that is still starting, or stops in the middle, is no error.

    Raises:
        TopologyConflict: one of its parts exists with other arguments.
    """

    def report(error: Exception, wait: float) -> None:
        log.warning("broker.unreachable", reason=type(error).__name__, retry_seconds=wait)

    connection.ensure_connection(errback=report, interval_start=1, interval_max=5)
    declare = connection.ensure(
        connection, declare_topology, errback=report, interval_start=1, interval_max=5
    )
    declare(connection)


def declare_topology(connection: Connection) -> None:
    """Declare every exchange, queue and binding; declaring them again changes nothing.

    Raises:
        TopologyConflict: one of them exists with other arguments.
    """
    name = ""
    try:
        with connection.channel() as channel:
            for exchange in topology.EXCHANGES:
                name = exchange.name
                Exchange(
                    name, type=exchange.kind, durable=True, arguments=dict(exchange.arguments)
                )(channel).declare()
            for queue in topology.QUEUES:
                name = queue.name
                declare_queue(channel, queue)
            for binding in topology.BINDINGS:
                name = binding.queue
                Queue(name)(channel).bind_to(binding.exchange, binding.routing_key)
            for name, routing_key in topology.OBSOLETE_BINDINGS:
                Queue(name)(channel).unbind_from(Exchange(topology.EVENTS.name), routing_key)
    except PreconditionFailed as error:
        raise TopologyConflict(name, str(error)) from error


def declare_queue(channel: Any, queue: topology.Queue) -> None:  # noqa: ANN401  # its stubs cover only what all transports share
    Queue(queue.name, durable=True, queue_arguments=dict(queue.arguments))(channel).queue_declare()


def work_queue(name: str) -> Queue:
    """Return Celery's view of a queue that `declare_topology` declared.

    It is on the default exchange: what Celery itself publishes reaches this queue alone, and
    no other subscriber of the topic exchange.
    """
    return Queue(
        name,
        exchange=Exchange("", type="direct"),
        routing_key=name,
        no_declare=True,
        # Celery reads the type of a queue from its configuration, not from the broker. Without
        # it Celery requests a global QoS, which quorum queues refuse.
        queue_arguments={"x-queue-type": "quorum"},
    )
