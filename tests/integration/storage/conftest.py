"""Every test of this directory runs against every object store of the test stack."""

import pytest

from dev.stack.infrastructure import Store
from schemas.settings import ObjectStoreSettings
from tests.store_behaviour import BEHAVIOUR_OF, StoreBehaviour


@pytest.fixture
def object_store_settings(store_settings: ObjectStoreSettings) -> ObjectStoreSettings:
    return store_settings


@pytest.fixture
def behaviour(store: Store) -> StoreBehaviour:
    return BEHAVIOUR_OF[store]
