from uuid import uuid4

from gateway.staging.port import StagedUpload
from gateway.staging.upload_cache import KnownUploads
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind


def an_upload() -> StagedUpload:
    return StagedUpload(
        id=UploadId(uuid4()),
        tenant_id=TenantId(uuid4()),
        size=1,
        chunk_size=1,
        kind=StagingKind.DIRECTORY,
    )


def test_an_upload_is_known_to_its_tenant_alone() -> None:
    known, upload = KnownUploads(), an_upload()
    known.remember(upload)

    assert known.find(upload.id, tenant_id=upload.tenant_id) == upload
    assert known.find(upload.id, tenant_id=TenantId(uuid4())) is None
    assert known.find(UploadId(uuid4()), tenant_id=upload.tenant_id) is None


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    known = KnownUploads(most=2)
    first, second, third = uploads = [an_upload() for _ in range(3)]
    known.remember(first)
    known.remember(second)
    known.find(first.id, tenant_id=first.tenant_id)
    known.remember(third)

    found = [known.find(one.id, tenant_id=one.tenant_id) for one in uploads]
    assert found == [first, None, third]
