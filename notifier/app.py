"""The composition root: builds, runs and closes the parts of each process."""

import asyncio
import random
import signal
from collections.abc import Coroutine
from functools import partial
from typing import Any, Never

import structlog

from notifier import broker, db, liveness
from notifier.dead_letters import DeadLetterConsumer
from notifier.delivery import attempt, transport
from notifier.delivery.dispatch import Dispatcher
from notifier.delivery.store import open_store
from notifier.intake import NotifyConsumer
from notifier.loops import run_together
from notifier.positions import Positions
from notifier.relay import Relay
from notifier.settings import DeliverSettings, Settings
from schemas.runtime import logging, postgres
from schemas.runtime.database_clock import DatabaseClock
from schemas.tables import outbox

log = structlog.stdlib.get_logger(__name__)

RELAY = "waybill-relay"
DELIVER = "waybill-deliver"
DEAD_LETTERS = "waybill-deliver-dead-letters"


def run_relay(settings: Settings) -> None:
    """Publish the outbox until SIGTERM."""
    logging.configure(settings, service="relay")
    asyncio.run(_until_stopped(_relay(settings)))


def run_deliver(settings: DeliverSettings) -> None:
    """Deliver webhooks and record dead letters until SIGTERM."""
    logging.configure(settings, service="deliver")
    asyncio.run(_until_stopped(_deliver(settings)))


async def _relay(settings: Settings) -> None:
    async with db.open_engine(settings, name=RELAY) as engine:
        wake, pulse = db.WakeUp(), liveness.Pulse()
        positions_wake, positions_pulse = db.WakeUp(), liveness.Pulse()
        clock = DatabaseClock(difference_max=settings.clock_difference_max)
        exchange: broker.EventExchange | None = None

        async def publish() -> Never:
            nonlocal exchange
            async with await broker.connect(settings, name=RELAY) as connection:
                exchange = await broker.EventExchange.open(
                    connection, publish_timeout=settings.publish_timeout
                )
                log.info("relay.started")
                await Relay(
                    transaction=engine.begin,
                    exchange=exchange,
                    wake=wake,
                    pulse=pulse,
                    settings=settings,
                ).run()

        # Beside the publishing, because the feed does not need the broker.
        positions = Positions(
            transaction=engine.begin,
            wake=positions_wake,
            pulse=positions_pulse,
            settings=settings,
        )

        def notify() -> None:
            wake.call()
            positions_wake.call()

        async def is_alive() -> bool:
            return (
                exchange is not None
                and exchange.is_open
                and pulse.is_fresh
                and positions_pulse.is_fresh
            )

        await run_together(
            relay=publish(),
            positions=positions.run(),
            listen=db.listen(settings, channel=outbox.WAKE_CHANNEL, wake=notify, name=RELAY),
            liveness=liveness.keep(settings.liveness_file, alive=is_alive),
            clock=db.watch_clock(engine, clock),
        )


async def _deliver(settings: DeliverSettings) -> None:
    async with (
        db.open_engine(settings, name=DELIVER) as engine,
        await broker.connect(settings, name=DELIVER) as connection,
        # A message whose properties break a connection must not stop the deliveries.
        await broker.connect(settings, name=DEAD_LETTERS) as dead_letter_connection,
        transport.open_client(settings, allowed_networks=settings.webhook_allowed) as client,
        open_store(connect=db.connector(settings, name=DELIVER), transaction=engine.begin) as store,
    ):
        clock = DatabaseClock(difference_max=settings.clock_difference_max)
        # Before the first attempt: receivers refuse a signature whose time is minutes from theirs.
        await postgres.through_outages(
            partial(db.read_time, engine, clock), doing="reading the time"
        )
        pulse = liveness.Pulse()
        dispatcher = Dispatcher(
            store=store,
            post=partial(attempt.post, client, response_max=settings.webhook_response_max),
            pulse=pulse,
            settings=settings,
            keys=settings.key_ring,
            clock=clock.now,
            jitter=lambda: random.uniform(-1, 1),  # noqa: S311  # spreads retries; not a secret
        )

        consumer = NotifyConsumer(connection=connection, record=dispatcher.record_events)
        dead_letters = DeadLetterConsumer(
            connection=dead_letter_connection, transaction=engine.begin
        )

        async def is_alive() -> bool:
            # Without the dead letters, for the same reason.
            return pulse.is_fresh and await consumer.is_consuming()

        log.info("deliver.started")
        await run_together(
            consumer=consumer.run(),
            dead_letters=dead_letters.run(),
            dispatcher=dispatcher.run(),
            listen=postgres.listen(db.connector(settings, name=DELIVER), dispatcher.notifications),
            liveness=liveness.keep(settings.liveness_file, alive=is_alive),
            clock=db.watch_clock(engine, clock),
        )


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run until SIGTERM or SIGINT, then cancel `work` and wait for its clean end.

    Raises:
        SystemExit: `work` failed; the log has the reason.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stopped.is_set():
        log.info("process.stopping")
        # Once: a second signal must not interrupt the clean end.
        working.cancel()
    try:
        await working
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
        log.info("process.stopped")
    except Exception:
        log.exception("process.failed")
        raise SystemExit(1) from None
