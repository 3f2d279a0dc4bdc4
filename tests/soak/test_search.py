"""Searches over minutes of changes, while the workers that read and index are killed."""

from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import Engine, create_engine, func, select

from dev.client import Client
from dev.stack.stack import Stack
from schemas.settings import EmbeddingModelName
from schemas.tables.passages import EmbeddingModel
from tests.e2e.searchable import assert_hits_stay_right_through_changes
from tests.eventually import eventually
from tests.stack import fresh_name

pytestmark = pytest.mark.timeout(3600)

ROUNDS = 20
DELETED_WITHIN = timedelta(minutes=3)
VICTIMS = ("index", "ingest", "transfer", "batch", "relay")


def test_hits_stay_right_through_twenty_rounds_of_changes_and_kills(system: Stack) -> None:
    random = Random(54)

    def kill_one() -> None:
        system.kill(random.choice(VICTIMS))

    engine = create_engine(system.environment["DATABASE_URL"])
    try:
        with Client(system.url, api_key=system.create_api_key(tenant=fresh_name())) as client:
            for number in range(ROUNDS):
                model = (EmbeddingModelName.USE, EmbeddingModelName.USE_STATIC)[number % 2]
                # The vectors of a model are deleted a minute after the switch to another one.
                eventually(
                    lambda: models(engine), until=lambda stored: stored <= 1, within=DELETED_WITHIN
                )
                assert_hits_stay_right_through_changes(
                    system, client, model=model, disturb=kill_one
                )
    finally:
        engine.dispose()


def models(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(EmbeddingModel)).scalar_one()
