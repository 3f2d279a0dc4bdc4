import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import aio_pika
import pytest
from aio_pika.exceptions import (
    AMQPConnectionError,
    ChannelInvalidStateError,
    ChannelPreconditionFailed,
)
from aiormq.exceptions import DeliveryError
from pamqp.commands import Basic

from notifier import broker
from notifier.broker import BrokerUnavailable, EventExchange, PublishRefused
from schemas.runtime.amqp import TopologyConflict

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel

pytestmark = pytest.mark.anyio

MESSAGE = aio_pika.Message(b"{}")


class Wire:
    """An aio-pika connection, channel and exchange in one, with a scripted `publish`."""

    is_closed = False

    def __init__(self, *, raises: BaseException | None = None, hangs: bool = False) -> None:
        self.connected = asyncio.Event()
        self.connected.set()
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self.transport: Any = SimpleNamespace(ready=self.unblocked.wait)
        self._raises = raises
        self._hangs = hangs

    async def ready(self) -> None:
        await self.connected.wait()

    async def publish(self, *_: object, **__: object) -> None:
        if self._raises is not None:
            raise self._raises
        if self._hangs:
            await asyncio.Event().wait()


def exchange_on(wire: Wire) -> EventExchange:
    anything = cast("Any", wire)
    return EventExchange(
        connection=anything,
        channel=anything,
        exchange=anything,
        publish_timeout=timedelta(milliseconds=20),
    )


async def test_a_confirmed_message_is_published() -> None:
    await exchange_on(Wire()).publish(MESSAGE, routing_key="upload.stored")


async def test_a_rejected_message_is_refused() -> None:
    wire = Wire(raises=DeliveryError(None, Basic.Nack()))
    with pytest.raises(PublishRefused, match="rejected by a queue"):
        await exchange_on(wire).publish(MESSAGE, routing_key="upload.stored")


@pytest.mark.parametrize(
    "error",
    [
        AMQPConnectionError("gone"),
        ChannelInvalidStateError("closed"),
        ConnectionResetError(),
        asyncio.CancelledError(),  # aiormq cancels the waiters of a lost connection
    ],
)
async def test_a_publish_on_a_lost_connection_does_not_refuse_the_message(
    error: BaseException,
) -> None:
    with pytest.raises(BrokerUnavailable):
        await exchange_on(Wire(raises=error)).publish(MESSAGE, routing_key="upload.stored")


async def test_a_missing_confirm_on_a_free_connection_refuses_the_message() -> None:
    with pytest.raises(PublishRefused, match=r"no confirm within 0\.02 s"):
        await exchange_on(Wire(hangs=True)).publish(MESSAGE, routing_key="upload.stored")


async def test_a_missing_confirm_on_a_blocked_connection_does_not_refuse_the_message() -> None:
    wire = Wire(hangs=True)
    wire.unblocked.clear()
    with pytest.raises(BrokerUnavailable, match="blocked"):
        await exchange_on(wire).publish(MESSAGE, routing_key="upload.stored")


async def test_cancelling_a_publish_raises_the_cancellation() -> None:
    exchange = exchange_on(Wire(hangs=True))
    publishing = asyncio.create_task(exchange.publish(MESSAGE, routing_key="upload.stored"))
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing


async def test_a_blocked_connection_is_open_but_not_ready() -> None:
    wire = Wire()
    wire.unblocked.clear()
    exchange = exchange_on(wire)
    assert exchange.is_open
    assert not await exchange.ready(within=timedelta(milliseconds=20))
    wire.unblocked.set()
    assert await exchange.ready(within=timedelta(milliseconds=20))


async def test_ready_waits_for_a_connection_that_is_being_replaced() -> None:
    wire = Wire()
    new, wire.transport = wire.transport, None
    waiting = asyncio.create_task(exchange_on(wire).ready(within=timedelta(seconds=5)))
    await asyncio.sleep(0)
    wire.transport = new
    assert await waiting


async def test_the_error_names_a_queue_that_exists_with_other_arguments() -> None:
    class Channel:
        async def declare_exchange(self, *_: object, **__: object) -> None: ...

        async def declare_queue(self, name: str, **_: object) -> None:
            if name == "notify":
                raise ChannelPreconditionFailed("inequivalent arg 'x-delivery-limit'")

    with pytest.raises(TopologyConflict, match="notify exists with other arguments"):
        await broker.declare_topology(cast("AbstractChannel", Channel()))
