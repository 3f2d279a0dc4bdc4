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


def test_only_what_is_older_than_the_grace_is_judged() -> None:
    def is_old(age: timedelta) -> bool:
        return ownership.is_old(NOW - age, now=NOW, grace=GRACE)

    assert is_old(timedelta(hours=2))
    assert not is_old(GRACE)
    assert not is_old(timedelta(0))
    assert not is_old(timedelta(hours=-5))  # a clock that is ahead of ours


def test_staging_belongs_to_uploads_that_are_not_stored_yet() -> None:
    needed = {status for status in UploadStatus if not ownership.is_left_in_staging(status)}
    assert needed == {UploadStatus.OPEN, UploadStatus.FINALIZED}
    assert ownership.is_left_in_staging(None)


def test_the_multipart_upload_a_job_goes_on_with_is_kept() -> None:
    assert not ownership.is_left_unfinished("m-1", transfer(multipart_id="m-1"))
    # Waiting in a retry tier, nobody holds its lease, and still it goes on with its parts.
    assert not ownership.is_left_unfinished(
        "m-1", transfer(multipart_id="m-1", lease_is_live=False)
    )


def test_one_just_begun_under_a_lease_is_kept() -> None:
    assert not ownership.is_left_unfinished("m-2", transfer(lease_is_live=True))
    assert not ownership.is_left_unfinished("m-2", transfer(multipart_id="m-1", lease_is_live=True))


def test_one_that_no_transfer_knows_is_an_orphan() -> None:
    assert ownership.is_left_unfinished("m-1", None)
    assert ownership.is_left_unfinished("m-1", transfer())
    assert ownership.is_left_unfinished("m-2", transfer(multipart_id="m-1"))


def test_a_settled_job_goes_on_with_nothing() -> None:
    settled = transfer(is_active=False, multipart_id="m-1", lease_is_live=True)
    assert ownership.is_left_unfinished("m-1", settled)
