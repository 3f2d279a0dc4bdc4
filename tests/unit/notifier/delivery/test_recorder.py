import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress

import psycopg
import pytest

from notifier.delivery.recorder import Recorder
from notifier.delivery.work import FinishedAttempt
from schemas.ids import DeliveryId
from tests.fakes.delivery_store import Tables
from tests.integration.notifier.stores import finished

pytestmark = pytest.mark.anyio


async def test_an_attempt_that_the_database_refuses_does_not_stop_the_others() -> None:
    tables = Tables()
    refused, *others = tables.add(tables.add_endpoint(), 3)
    answers: dict[DeliveryId, bool] = {}

    async def record(attempts: Sequence[FinishedAttempt]) -> Collection[DeliveryId]:
        ids = [attempt.delivery.delivery_id for attempt in attempts]
        if refused.delivery_id in ids:
            raise psycopg.errors.NumericValueOutOfRange
        return ids

    recorder = Recorder(
        record=record,
        recorded=lambda attempt, is_recorded: answers.update(
            {attempt.delivery.delivery_id: is_recorded}
        ),
    )
    running = asyncio.create_task(recorder.run())
    for delivery in (refused, *others):
        recorder.add(finished(delivery))
    await recorder.until_empty()
    assert not running.done()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert answers == {refused.delivery_id: False} | {each.delivery_id: True for each in others}
