"""Many kills of the sweep that deletes what is older than its retention."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.context import Context
from schemas.settings import ObjectStoreSettings
from tests.integration.pipeline.maintenance.conftest import context, with_store  # noqa: F401  # fixtures
from tests.integration.pipeline.maintenance.killed_sweeps import (
    Extent,
    assert_killed_sweeps_end_right,
    environment_of,
)

pytestmark = pytest.mark.timeout(1800)


def test_a_retention_that_is_killed_twenty_times_leaves_nothing(
    with_store: Context,  # noqa: F811  # a fixture
    object_store_settings: ObjectStoreSettings,
    tmp_path: Path,
) -> None:
    settings = with_store.settings.model_copy(update=object_store_settings.model_dump())
    of_store = replace(with_store, settings=settings)

    assert_killed_sweeps_end_right(
        of_store,
        environment_of(of_store),
        extent=Extent(kills=20, documents=200, jobs=2_000),
        directory=tmp_path,
    )
