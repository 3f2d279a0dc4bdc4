"""What the pipeline itself does on the broker: declare the topology, name its queues."""

from kombu import Connection, Exchange, Queue

from schemas import topology


class TopologyConflict(Exception):
    """An exchange or queue of that name exists with other arguments; the broker keeps the old one."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} exists with other arguments ({reason}); delete or rename it")


def declare_topology(connection: Connection) -> None:
    """Declare every exchange, queue and binding; declaring them again changes nothing.

    Raises:
        TopologyConflict: one of them exists with other arguments.
    """
    channel = connection.channel()
    name = ""
    try:
        for exchange in topology.EXCHANGES:
            name = exchange.name
            Exchange(name, type=exchange.kind, durable=True, arguments=dict(exchange.arguments))(
                channel
            ).declare()
        for queue in topology.QUEUES:
            name = queue.name
            Queue(name, durable=True, queue_arguments=dict(queue.arguments))(
                channel
            ).queue_declare()
        for binding in topology.BINDINGS:
            name = binding.queue
            Queue(name)(channel).bind_to(binding.exchange, binding.routing_key)
    except connection.channel_errors as error:
        raise TopologyConflict(name, str(error)) from error


def work_queue(name: str) -> Queue:
    """Return the Celery view of a queue that `declare_topology` made.

    Its exchange is the default one: whatever Celery itself may publish to it
    reaches this queue alone, never the other subscribers of the topic exchange.
    """
    return Queue(
        name,
        exchange=Exchange("", type="direct"),
        routing_key=name,
        no_declare=True,
        # Celery reads the queue's type from its configuration, not from the
        # broker; without it, it asks for a global QoS that quorum queues refuse.
        queue_arguments={"x-queue-type": "quorum"},
    )
