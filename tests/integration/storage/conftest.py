"""Everything here is asked of every object store there is to test against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.habits import HABITS

if TYPE_CHECKING:
    from dev.stack.infrastructure import Store
    from schemas.settings import ObjectStoreSettings
    from tests.habits import Habits


@pytest.fixture
def object_store_settings(store_settings: ObjectStoreSettings) -> ObjectStoreSettings:
    return store_settings


@pytest.fixture
def habits(store: Store) -> Habits:
    return HABITS[store]
