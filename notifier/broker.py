"""RabbitMQ: connections, the topology, and publishing with confirms."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

import aio_pika
import structlog
from aio_pika.abc import (
    AbstractChannel,
    AbstractExchange,
    AbstractRobustChannel,
    AbstractRobustConnection,
)
from aio_pika.connection import make_url
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from pamqp.commands import Queue
from yarl import URL

from notifier import foreign_properties
from schemas import topology
from schemas.runtime import amqp, outages
from schemas.settings import BrokerSettings

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

RECONNECT_INTERVAL: Final = 1
"""Seconds between attempts to reconnect; bounds how late work resumes after a restart."""

CONNECT_TIMEOUT: Final = 10
"""Seconds; a broker that is starting may accept a connection and then not answer."""

READY_INTERVAL: Final = 0.05
"""Seconds between two checks of a connection that is being restored."""

TOPOLOGY_INTERVAL: Final = timedelta(minutes=1)
"""Interval between two declarations of the topology. A deleted queue that nothing consumes, such as
a retry tier, is missed only by the messages that go there; they wait at most this long."""

REPLACEMENT_PAUSE: Final = timedelta(milliseconds=500)
"""Pause between a returned message and the next declaration of the topology. RabbitMQ 3.10 does not
notify the consumers of a queue that is deleted and declared within milliseconds."""

OUTAGES: Final = CONNECTION_EXCEPTIONS
"""What aio-pika raises if the broker, the connection or the channel is gone."""


class PublishRefused(Exception):
    """The broker did not accept this message; it may accept others."""


class SubscriptionLost(ConnectionError):
    """The broker has no subscription of this consumer to a queue; its connection is of no use."""

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(f"no subscription to {queue}: {reason}")


class BrokerUnavailable(Exception):
    """The connection is lost or blocked; whether the message arrived is unknown."""


async def through_outages(work: Callable[[], Awaitable[T]], *, doing: str) -> T:
    """Await `work()`; repeat it while the broker is unreachable; see `outages.outlast`."""
    return await outages.outlast(
        work,
        event="broker.unavailable",
        is_outage=lambda error: isinstance(error, (*OUTAGES, TimeoutError)),
        doing=doing,
    )


class RestoredChannel(aio_pika.RobustChannel):
    """A channel that leaves its restoration to the connection if the connection is lost."""

    async def _on_close(self, closing: asyncio.Future[Any]) -> BaseException | None:
        # With its connection the channel is lost too, and aio-pika tries to open it again on the lost
        # connection. The failure would be logged as an error at every restart of the broker.
        try:
            return await super()._on_close(closing)
        except OUTAGES as error:
            log.debug("broker.channel_lost", error=outages.describe(error))
            return error


class FailoverConnection(aio_pika.RobustConnection):
    """A connection that restores itself on the next of several brokers.

    aio-pika connects to `url`, also after a loss, and calls `_on_connection_close` once for each
    connection that was lost or could not be opened.
    """

    CHANNEL_CLASS = RestoredChannel

    def __init__(self, urls: deque[URL], *, name: str) -> None:
        """Create a connection that is not open yet.

        Args:
            urls: the brokers. The first is used; a failure moves it to the end.
            name: the name of the connection in the management UI.
        """
        self._urls = urls
        super().__init__(
            urls[0],
            reconnect_interval=RECONNECT_INTERVAL,
            client_properties=amqp.client_properties(name),
        )

    async def _on_connection_close(self, closing: asyncio.Future[Any]) -> None:
        self._urls.rotate(-1)
        self.url = self._urls[0]
        await super()._on_connection_close(closing)


async def connect(settings: BrokerSettings, *, name: str) -> AbstractRobustConnection:
    """Wait until a broker accepts a connection; the connection then restores itself.

    A process that publishes and consumes uses a connection for each: under a memory alarm
    the broker blocks the publishing connection, and acks must still pass.

    Args:
        settings: the settings of the broker.
        name: the name of the connection in the management UI.
    """
    foreign_properties.tolerate()
    heartbeat = int(amqp.HEARTBEAT.total_seconds())
    urls = deque(
        make_url(url, heartbeat=heartbeat) for url in amqp.in_random_order(settings.rabbitmq_urls)
    )

    async def attempt() -> AbstractRobustConnection:
        connection = FailoverConnection(urls, name=name)
        await connection.connect(timeout=CONNECT_TIMEOUT)
        return connection

    return await through_outages(attempt, doing="connecting")


async def declare_topology(channel: AbstractChannel) -> None:
    """Declare every exchange, queue and binding; declaring them again changes nothing.

    A robust channel repeats the declarations after each reconnect: a broker that comes back
    empty has its topology before anything is published.

    Raises:
        amqp.TopologyConflict: one of them exists with other arguments.
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
        for name, routing_key in topology.OBSOLETE_BINDINGS:
            await queues[name].unbind(topology.EVENTS.name, routing_key=routing_key)
    except ChannelPreconditionFailed as error:
        raise amqp.TopologyConflict(name, str(error)) from error


async def count(connection: AbstractRobustConnection, queue: str) -> Queue.DeclareOk | None:
    """Return the counts of a queue's messages and consumers; None while the connection is lost.

    Raises:
        SubscriptionLost: the queue is missing.
    """
    transport = connection.transport
    if transport is None or not connection.connected.is_set():
        return None
    try:
        with _lost_connection_as_error():
            async with asyncio.timeout(CONNECT_TIMEOUT):
                # A missing queue closes the channel that asks for it.
                channel = await transport.connection.channel(publisher_confirms=False)
                try:
                    return await channel.queue_declare(queue, passive=True)
                except ChannelNotFoundEntity as error:
                    raise SubscriptionLost(queue, "the queue is missing") from error
                finally:
                    await channel.close()
    except (BrokerUnavailable, TimeoutError):
        return None


class EventExchange:
    """The exchange of events, and the queues of work. The broker confirms each publish."""

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
        self._declare_at = time.monotonic() + TOPOLOGY_INTERVAL.total_seconds()

    @classmethod
    async def open(
        cls, connection: AbstractRobustConnection, *, publish_timeout: timedelta
    ) -> "EventExchange":
        """Declare the topology and return the exchange of events.

        Args:
            connection: a connection that is used for nothing else.
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

    @property
    def state(self) -> str:
        """Whether the broker accepts messages, in words, for the log."""
        if not self.is_open:
            return "disconnected"
        return "blocked: the broker has an alarm for memory or disk space"

    async def ready(self, *, within: timedelta) -> bool:
        """Wait until the broker accepts messages: connected, topology declared, not blocked.

        Declares the topology again after a returned message, and once per `TOPOLOGY_INTERVAL`: an
        operator may have deleted a queue.

        Raises:
            amqp.TopologyConflict: a queue was replaced by one with other arguments.
        """
        if not await self._accepts_messages(within=within):
            return False
        if time.monotonic() >= self._declare_at:
            await self._declare_again()
        return True

    async def _accepts_messages(self, *, within: timedelta) -> bool:
        try:
            async with asyncio.timeout(within.total_seconds()):
                while True:
                    await self._channel.ready()
                    transport = self._connection.transport
                    if transport is not None:
                        await transport.ready()
                        if self.is_open:
                            return True
                    # The connection is being replaced.
                    await asyncio.sleep(READY_INTERVAL)
        except TimeoutError:
            return False

    async def _declare_again(self) -> None:
        """Declare the topology on a channel of its own; a failure is logged and repeated later."""
        # A robust channel stores each declaration, to repeat it: the channel of the publishes would
        # grow.
        channel = self._connection.channel(publisher_confirms=False)
        pause = TOPOLOGY_INTERVAL
        try:
            with _lost_connection_as_error():
                async with asyncio.timeout(CONNECT_TIMEOUT), channel:
                    await declare_topology(channel)
        except (BrokerUnavailable, TimeoutError) as error:
            log.warning("broker.topology_not_declared", error=outages.describe(error))
            pause = timedelta(seconds=RECONNECT_INTERVAL)
        self._declare_at = time.monotonic() + pause.total_seconds()

    async def publish(self, message: aio_pika.Message, *, routing_key: str) -> None:
        """Publish and wait for the confirm, which means that every queue of the message has it.

        Raises:
            PublishRefused: the broker rejected or returned the message, or sent no confirm in time.
            BrokerUnavailable: the connection was lost or is blocked.
        """
        await self._publish(self._exchange, message, routing_key=routing_key)

    async def publish_to_queue(self, message: aio_pika.Message, *, queue: str) -> None:
        """Publish to one queue alone, and wait for the confirm.

        Raises:
            PublishRefused: as for `publish`; also if the queue does not exist.
            BrokerUnavailable: the connection was lost or is blocked.
        """
        await self._publish(self._channel.default_exchange, message, routing_key=queue)

    async def _publish(
        self, exchange: AbstractExchange, message: aio_pika.Message, *, routing_key: str
    ) -> None:
        with _lost_connection_as_error():
            try:
                async with asyncio.timeout(self._timeout):
                    await exchange.publish(message, routing_key=routing_key, mandatory=True)
            except PublishError as error:
                pause = REPLACEMENT_PAUSE.total_seconds()
                self._declare_at = min(self._declare_at, time.monotonic() + pause)
                raise PublishRefused(f"returned: {error.args[0]}") from error
            except DeliveryError as error:
                raise PublishRefused("rejected by a queue") from error
            except TimeoutError as error:
                # Under an alarm the broker reads nothing. Otherwise a queue may have lost its
                # majority.
                if not await self._accepts_messages(within=timedelta(0)):
                    raise BrokerUnavailable("blocked") from error
                raise PublishRefused(f"no confirm within {self._timeout:g} s") from error


@contextmanager
def _lost_connection_as_error() -> Iterator[None]:
    """Raise `BrokerUnavailable` for every error that means a lost connection."""
    try:
        yield
    except SubscriptionLost:
        raise
    except OUTAGES as error:
        raise BrokerUnavailable(str(error)) from error
    except asyncio.CancelledError as error:
        # aiormq cancels the waiters of a lost connection; this task itself is not cancelled.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise BrokerUnavailable("connection lost") from error
