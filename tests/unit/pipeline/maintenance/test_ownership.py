from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.maintenance import ownership
from pipeline.maintenance.ownership import Transfer
from schemas import object_keys, staging_layout
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import UploadStatus

TENANT = TenantId(UUID("11111111-1111-4111-8111-111111111111"))
UPLOAD = UploadId(UUID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"))

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
GRACE = timedelta(hours=1)


def transfer(
    *, is_active: bool = True, multipart_id: str | None = None, lease_is_live: bool = False
) -> Transfer:
    return Transfer(is_active=is_active, multipart_id=multipart_id, lease_is_live=lease_is_live)


@given(st.uuids())
def test_a_file_named_for_an_upload_is_known(upload_id: UUID) -> None:
    assert staging_layout.upload_of_file(str(upload_id)) == upload_id


@pytest.mark.parametrize(
    "name",
    [
        staging_layout.MARKER,
        "lost+found",
        ".nfs000000001",
        str(UPLOAD).upper(),
        UPLOAD.hex,
        f"{{{UPLOAD}}}",
        f"{UPLOAD}.tmp",
        "",
    ],
)
def test_any_other_file_is_not_ours(name: str) -> None:
    assert staging_layout.upload_of_file(name) is None


def test_keys_we_give_are_known() -> None:
    chunk = staging_layout.chunk_key(TENANT, UPLOAD, index=3, sha256=bytes(32))
    assert staging_layout.upload_of_key(chunk) == UPLOAD
    assert object_keys.upload_of_original(object_keys.original(TENANT, UPLOAD)) == UPLOAD


@pytest.mark.parametrize(
    "key",
    [
        "",
        "staging/",
        "staging/.probe/checksums",
        f"staging/{UPLOAD}",
        f"staging/{TENANT}/{UPLOAD}",
        f"staging/elsewhere/{UPLOAD}/00000000-00",
        f"staging/{TENANT}/{UPLOAD.hex}/00000000-00",
        f"staging/{TENANT}/{UPLOAD}.bak/00000000-00",
        f"originals/elsewhere/{UPLOAD}",
        f"originals/{TENANT}/{UPLOAD}/more",
        f"originals/{TENANT}/{str(UPLOAD).upper()}",
        f"incoming/{TENANT}/{UPLOAD}",
        f"backups/originals/{TENANT}/{UPLOAD}",
    ],
)
def test_any_other_key_is_not_ours(key: str) -> None:
    assert staging_layout.upload_of_key(key) is None
    assert object_keys.upload_of_original(key) is None


def test_only_what_is_older_than_the_grace_is_judged() -> None:
    def is_settled(age: timedelta) -> bool:
        return ownership.is_settled(NOW - age, now=NOW, grace=GRACE)

    assert is_settled(timedelta(hours=2))
    assert not is_settled(GRACE)
    assert not is_settled(timedelta(0))
    assert not is_settled(timedelta(hours=-5))  # a clock that is ahead of ours


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
