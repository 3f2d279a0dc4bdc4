"""Runs dispatchers inside a test, as their process does."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from notifier import db
from notifier.delivery import attempt, transport
from notifier.delivery.dispatch import Dispatcher
from notifier.delivery.store import open_store
from notifier.liveness import Pulse
from schemas.key_ring import KeyRing
from schemas.runtime import postgres
from schemas.settings import DatabaseSettings, DeliverySettings
from tests import trust
from tests.factories.secret_keys import KEYS
from tests.integration.notifier.process import running
from tests.integration.notifier.rows import engine_of
from tests.webhook_urls import LOOPBACK_NETWORKS


class RunDispatcher(Protocol):
    """Runs a dispatcher during a block; `settings` are those of `DeliverySettings`."""

    def __call__(
        self,
        *,
        database: DatabaseSettings | None = None,
        keys: KeyRing = KEYS,
        **settings: object,
    ) -> AbstractAsyncContextManager[Dispatcher]: ...


def on(own_database: DatabaseSettings) -> RunDispatcher:
    @asynccontextmanager
    async def run(
        *,
        database: DatabaseSettings | None = None,
        keys: KeyRing = KEYS,
        **settings: object,
    ) -> AsyncIterator[Dispatcher]:
        delivery = DeliverySettings.model_validate({"webhook_timeout": "5s", **settings})
        connect = db.connector(database or own_database, name="dispatcher")
        async with (
            engine_of(database or own_database) as engine,
            open_store(connect=connect, transaction=engine.begin) as store,
            transport.open_client(
                delivery, allowed_networks=LOOPBACK_NETWORKS, ssl_context=trust.PUBLIC
            ) as client,
        ):
            dispatcher = Dispatcher(
                store=store,
                post=partial(attempt.post, client, response_max=delivery.webhook_response_max),
                pulse=Pulse(),
                settings=delivery,
                keys=keys,
                clock=lambda: datetime.now(UTC),
                jitter=lambda: 0.0,
            )
            async with (
                running(postgres.listen(connect, dispatcher.notifications)),
                running(dispatcher.run()),
            ):
                yield dispatcher

    return run
