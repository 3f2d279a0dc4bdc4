"""What a gateway answers to a probe."""

from collections.abc import Sequence

import pytest

from gateway.readiness import (
    Check,
    Readiness,
    Status,
    degraded,
    failed,
    judge_migration,
)

KNOWN = ("0007", "0008", "0009")


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ([Check()], Status.READY),
        ([Check(), degraded("full: x")], Status.DEGRADED),
        ([failed("wrong: x"), degraded("full: x"), Check()], Status.NOT_READY),
    ],
    ids=["ok", "one_degraded", "one_failed"],
)
def test_the_worst_check_decides(checks: Sequence[Check], expected: Status) -> None:
    readiness = Readiness(
        checks={str(number): check for number, check in enumerate(checks)},
        staging_used_percent=None,
    )
    assert readiness.status == expected


@pytest.mark.parametrize(
    ("applied", "status", "word"),
    [
        ([], Status.NOT_READY, "missing"),
        (["0008"], Status.NOT_READY, "older"),
        (["0009"], Status.READY, "ok"),
        (["0010"], Status.DEGRADED, "newer"),
        (["0009", "0010b"], Status.DEGRADED, "newer"),
    ],
)
def test_a_migration_that_is_not_the_head_has_a_reason(
    applied: Sequence[str], status: Status, word: str
) -> None:
    assert judge_migration(applied, known=KNOWN).kind == (status, word)


def test_figures_in_a_reason_are_no_change() -> None:
    assert degraded("full: 1 MiB").kind == degraded("full: 2 MiB").kind != failed("full: 1").kind
