from dataclasses import replace
from pathlib import Path

from pipeline.context import Context
from schemas.settings import ObjectStoreSettings
from tests.integration.pipeline.maintenance.killed_sweeps import (
    Extent,
    assert_killed_sweeps_end_right,
    environment_of,
)


def test_a_retention_that_is_killed_leaves_nothing_and_announces_nothing_twice(
    with_store: Context, object_store_settings: ObjectStoreSettings, tmp_path: Path
) -> None:
    settings = with_store.settings.model_copy(update=object_store_settings.model_dump())
    context = replace(with_store, settings=settings)

    assert_killed_sweeps_end_right(
        context,
        environment_of(context),
        extent=Extent(kills=3, documents=8, jobs=20),
        directory=tmp_path,
    )
