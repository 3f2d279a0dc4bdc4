"""The way to RabbitMQ: connections, the topology, and publishing with confirms."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar

import aio_pika
import structlog
from aio_pika.abc import (
    AbstractChannel,
    AbstractExchange,
    AbstractRobustChannel,
    AbstractRobustConnection,
)
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from schemas import topology
from schemas.settings import BrokerSettings

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

RECONNECT_INTERVAL: Final = 1
"""Seconds between attempts to reconnect, which bound how late work resumes after a restart."""

HEARTBEAT: Final = 30
"""Seconds; a peer that vanished without a word is noticed after three of them."""

CONNECT_TIMEOUT: Final = 10
"""Seconds; a broker that is still starting may take the connection and then say nothing."""

READY_PAUSE: Final = 0.05
"""Seconds between looks at a connection that is being restored."""

OUTAGES: Final = CONNECTION_EXCEPTIONS
"""What aio-pika raises when the broker, the connection or the channel went away."""


class TopologyConflict(Exception):
    """An exchange or queue of that name exists with other arguments; the broker keeps the old one."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} exists with other arguments ({reason}); delete or rename it")


class PublishRefused(Exception):
    """The broker did not take this one message; others may pass."""


class BrokerUnavailable(Exception):
    """The connection was lost or is blocked, which says nothing about the message."""


async def through_outages(work: Callable[[], Awaitable[T]], *, doing: str) -> T:
    """Await `work()`, on an outage of the broker once more, for as long as it lasts.

    Args:
        work: begun anew each time.
        doing: what waits, for the log.
    """

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "broker.unavailable",
            doing=doing,
            tries=state.attempt_number,
            error=f"{type(error).__name__}: {error}",
        )

    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type((*OUTAGES, TimeoutError)),
        wait=wait_exponential_jitter(multiplier=0.2, max=5, jitter=0.5),
        before_sleep=report,
    ):
        with attempt:
            return await work()
    raise RuntimeError("a policy without an end ended")


async def connect(settings: BrokerSettings, *, name: str) -> AbstractRobustConnection:
    """Connect, waiting for the broker if need be; from then on the connection restores itself.

    A process that publishes and consumes uses one connection for each: under a
    memory alarm the broker blocks the one that publishes, and acks must still pass.

    Args:
        settings: where the broker is.
        name: shown in the management UI.
    """

    async def attempt() -> AbstractRobustConnection:
        return await aio_pika.connect_robust(
            settings.rabbitmq_url.get_secret_value(),
            reconnect_interval=RECONNECT_INTERVAL,
            heartbeat=HEARTBEAT,
            timeout=CONNECT_TIMEOUT,
            client_properties={"connection_name": name},
        )

    return await through_outages(attempt, doing="connecting")


async def declare_topology(channel: AbstractChannel) -> None:
    """Declare every exchange, queue and binding; declaring them again changes nothing.

    A robust channel repeats all of it after each reconnect, so that even a
    broker that came back empty is complete before anything is published.

    Raises:
        TopologyConflict: one of them exists with other arguments.
    """
    name = ""
    try:
        for exchange in topology.EXCHANGES:
            name = exchange.name
            await channel.declare_exchange(
                name, type=exchange.kind, durable=True, arguments=dict(exchange.arguments)
            )
        queues = {}
        for queue in topology.QUEUES:
            name = queue.name
            queues[name] = await channel.declare_queue(
                name, durable=True, arguments=dict(queue.arguments)
            )
        for binding in topology.BINDINGS:
            name = binding.queue
            await queues[name].bind(binding.exchange, routing_key=binding.routing_key)
    except ChannelPreconditionFailed as error:
        raise TopologyConflict(name, str(error)) from error


class EventExchange:
    """The exchange every event goes through. Each publish is confirmed by the broker."""

    def __init__(
        self,
        *,
        connection: AbstractRobustConnection,
        channel: AbstractRobustChannel,
        exchange: AbstractExchange,
        publish_timeout: timedelta,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._exchange = exchange
        self._timeout = publish_timeout.total_seconds()

    @classmethod
    async def open(
        cls, connection: AbstractRobustConnection, *, publish_timeout: timedelta
    ) -> "EventExchange":
        """Declare the topology and return its exchange of events.

        Args:
            connection: used for nothing else.
            publish_timeout: how long a publish waits for its confirm.
        """

        async def attempt() -> EventExchange:
            await connection.ready()
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await declare_topology(channel)
            return cls(
                connection=connection,
                channel=channel,
                exchange=await channel.get_exchange(topology.EVENTS.name),
                publish_timeout=publish_timeout,
            )

        return await through_outages(attempt, doing="declaring the topology")

    @property
    def is_open(self) -> bool:
        return self._connection.connected.is_set() and not self._channel.is_closed

    async def ready(self, *, within: timedelta) -> bool:
        """Wait until the broker takes messages: connected, all declared anew, and not blocked."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                while True:
                    await self._channel.ready()
                    transport = self._connection.transport
                    if transport is not None:
                        await transport.ready()
                        if self.is_open:
                            return True
                    # One connection is just being replaced by another.
                    await asyncio.sleep(READY_PAUSE)
        except TimeoutError:
            return False

    async def publish(self, message: aio_pika.Message, *, routing_key: str) -> None:
        """Publish and wait for the confirm: every queue of the message has it then.

        Raises:
            PublishRefused: the broker rejected or returned it, or kept silent for too long.
            BrokerUnavailable: the connection was lost or is blocked. Whether
                the message arrived is unknown.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._exchange.publish(message, routing_key=routing_key, mandatory=True)
        except PublishError as error:
            raise PublishRefused(f"returned: {error.args[0]}") from error
        except DeliveryError as error:
            raise PublishRefused("rejected by a queue") from error
        except TimeoutError as error:
            # Under an alarm the broker reads nothing; else one queue may have lost its majority.
            if not await self.ready(within=timedelta(0)):
                raise BrokerUnavailable("blocked") from error
            raise PublishRefused(f"no confirm within {self._timeout:g} s") from error
        except OUTAGES as error:
            raise BrokerUnavailable(str(error)) from error
        except asyncio.CancelledError as error:
            # aiormq cancels what waits on a lost connection; nobody cancelled this task.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise BrokerUnavailable("connection lost") from error
