"""Searches over minutes of changes, while the workers that read and index are killed."""

from random import Random

import pytest

from dev.client import Client
from dev.stack.stack import Stack
from schemas.settings import EmbeddingModelName
from tests.e2e.searchable import assert_hits_stay_right_through_changes
from tests.stack import fresh_name

pytestmark = pytest.mark.timeout(3600)

ROUNDS = 20
VICTIMS = ("index", "ingest", "transfer", "batch", "relay")


def test_hits_stay_right_through_twenty_rounds_of_changes_and_kills(system: Stack) -> None:
    random = Random(54)

    def kill_one() -> None:
        system.kill(random.choice(VICTIMS))

    with Client(system.url, api_key=system.create_api_key(tenant=fresh_name())) as client:
        for number in range(ROUNDS):
            model = (EmbeddingModelName.USE, EmbeddingModelName.USE_STATIC)[number % 2]
            assert_hits_stay_right_through_changes(system, client, model=model, disturb=kill_one)
