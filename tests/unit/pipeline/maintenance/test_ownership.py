from datetime import UTC, datetime, timedelta

from pipeline.maintenance import ownership
from pipeline.maintenance.ownership import Transfer
from schemas.lifecycle import UploadStatus

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
GRACE = timedelta(hours=1)


def transfer(
    *, is_active: bool = True, multipart_id: str | None = None, lease_is_live: bool = False
) -> Transfer:
    return Transfer(is_active=is_active, multipart_id=multipart_id, lease_is_live=lease_is_live)


def test_only_objects_older_than_the_grace_period_are_old() -> None:
    def is_old(age: timedelta) -> bool:
        return ownership.is_old(NOW - age, now=NOW, grace=GRACE)

    assert is_old(timedelta(hours=2))
    assert not is_old(GRACE)
    assert not is_old(timedelta(0))
    assert not is_old(timedelta(hours=-5))  # the clock of the store is ahead


def test_open_and_finalized_uploads_need_their_staging() -> None:
    needed = {status for status in UploadStatus if not ownership.is_left_in_staging(status)}
    assert needed == {UploadStatus.OPEN, UploadStatus.FINALIZED}
    assert ownership.is_left_in_staging(None)


def test_the_recorded_multipart_upload_of_an_active_job_is_kept() -> None:
    assert not ownership.is_left_unfinished("m-1", transfer(multipart_id="m-1"))
    # A transfer in a retry tier has no lease; its next delivery continues with the parts.
    assert not ownership.is_left_unfinished(
        "m-1", transfer(multipart_id="m-1", lease_is_live=False)
    )


def test_an_unrecorded_multipart_upload_is_kept_under_a_live_lease() -> None:
    assert not ownership.is_left_unfinished("m-2", transfer(lease_is_live=True))
    assert not ownership.is_left_unfinished("m-2", transfer(multipart_id="m-1", lease_is_live=True))


def test_a_multipart_upload_that_no_active_job_records_is_an_orphan() -> None:
    assert ownership.is_left_unfinished("m-1", None)
    assert ownership.is_left_unfinished("m-1", transfer())
    assert ownership.is_left_unfinished("m-2", transfer(multipart_id="m-1"))


def test_the_multipart_upload_of_a_settled_job_is_an_orphan() -> None:
    settled = transfer(is_active=False, multipart_id="m-1", lease_is_live=True)
    assert ownership.is_left_unfinished("m-1", settled)
