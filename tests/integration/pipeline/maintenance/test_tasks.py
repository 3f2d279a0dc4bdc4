"""The periodic tasks: time budget, one sweep of a kind at a time, outages of the database."""

from datetime import timedelta

import pytest
from pydantic import SecretStr

from pipeline.context import Context, build_context, install_context
from pipeline.ingest.extractors import registry
from pipeline.maintenance import exclusive, expiry, orphans, retention
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.report import SweepReport
from pipeline.maintenance.tasks import SweepOrphans, SweepRows, SweepUploads
from schemas.lifecycle import UploadStatus
from tests.integration.pipeline.maintenance.leftovers import (
    opened,
    status_of,
)


def test_a_spent_budget_leaves_the_rest_for_the_next_sweep(context: Context) -> None:
    opened(context)
    none_left = Budget.of(timedelta(0))
    assert expiry.sweep(context, none_left) == expiry.Summary(
        expired=0, bytes_left=0, complete=False
    )
    assert orphans.sweep_files(context, none_left) == SweepReport()
    assert retention.sweep(context, none_left) == retention.Summary(
        outbox=0, inbox=0, idempotency=0, dead_letters=0
    )


def test_a_sweep_ends_quietly_while_the_database_is_down(context: Context) -> None:
    away = context.settings.model_copy(
        update={"database_url": SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")}
    )
    install_context(build_context(away, will_be_read=registry.will_be_read))
    for sweep in (SweepUploads, SweepOrphans, SweepRows):
        sweep().run()


def test_a_second_sweep_of_a_kind_ends_at_once(context: Context) -> None:
    upload = opened(context)
    install_context(context)
    with exclusive.advisory_lock(context.engine, SweepUploads.name) as is_ours:
        assert is_ours
        SweepUploads().run()
        assert status_of(context, upload) == UploadStatus.OPEN
    SweepUploads().run()
    assert status_of(context, upload) == UploadStatus.EXPIRED


def test_the_advisory_lock_is_released_after_an_error(context: Context) -> None:
    with pytest.raises(ZeroDivisionError), exclusive.advisory_lock(context.engine, "sweep"):
        raise ZeroDivisionError
    with (
        exclusive.advisory_lock(context.engine, "sweep") as is_ours,
        exclusive.advisory_lock(context.engine, "another") as another,
    ):
        assert is_ours
        assert another
