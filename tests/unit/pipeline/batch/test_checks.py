from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from pipeline.batch.checks import Decision, Finalized, OpenUpload, Reference, Tenant, decide
from schemas import object_keys
from schemas.api.batches import BatchLine
from schemas.api.uploads import PipelineOptions
from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import UploadStatus
from schemas.policy.quotas import Quotas, Usage

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
TENANT = Tenant(
    id=TenantId(uuid4()),
    quotas=Quotas(
        file_size=100,
        total_bytes=1000,
        open_uploads=10,
        staged_bytes=None,
        staged_share=0.5,
        types=("application/*",),
    ),
    usage=Usage(total_bytes=1000, open_uploads=0, staged_bytes=0),
)
KEY = f"{object_keys.incoming(TENANT.id)}2026/a.pdf"
UPLOAD = OpenUpload(
    id=UploadId(uuid4()),
    status=UploadStatus.OPEN,
    filename="a.pdf",
    content_type="application/pdf",
    sniffed_type="application/pdf",
    size=100,
    chunk_count=2,
    sha256=None,
    expires_at=NOW + timedelta(seconds=1),
    stored=(1, 0),
)
SHA256 = "0" * 64


def decision(
    line: BatchLine,
    *,
    upload: OpenUpload = UPLOAD,
    tenant: Tenant = TENANT,
    metadata: dict[str, str] | None = None,
) -> Decision:
    return decide(
        line, tenant=tenant, uploads={upload.id: upload}, metadata=metadata or {}, now=NOW
    )


def test_a_reference_is_named_after_the_last_part_of_its_key() -> None:
    assert decision(BatchLine(object_key=KEY)) == Reference(
        object_key=KEY, filename="a.pdf", content_type=None, sha256=None, metadata={}, pipeline=None
    )


def test_a_line_may_switch_off_the_search_for_tables() -> None:
    line = BatchLine(object_key=KEY, pipeline=PipelineOptions(tables=False))

    found = decision(line)

    assert isinstance(found, Reference)
    assert found.pipeline == {"tables": False}


def test_the_metadata_of_a_line_win() -> None:
    line = BatchLine(object_key=KEY, filename="b.pdf", metadata={"a": "line"})

    found = decision(line, metadata={"a": "batch", "b": "batch"})

    assert isinstance(found, Reference)
    assert (found.filename, found.metadata) == ("b.pdf", {"a": "line", "b": "batch"})


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (BatchLine(object_key=f"incoming/{uuid4()}/a.pdf"), ErrorCode.REFERENCE_REFUSED),
        (BatchLine(object_key=KEY, content_type="image/png"), ErrorCode.TYPE_NOT_ALLOWED),
        (
            BatchLine(object_key=KEY, metadata={str(n): "" for n in range(64)}),
            ErrorCode.INVALID_REQUEST,
        ),
        (BatchLine(upload_id=UploadId(uuid4())), ErrorCode.UPLOAD_NOT_FOUND),
    ],
)
def test_a_line_that_a_request_could_not_submit_is_refused(
    line: BatchLine, code: ErrorCode
) -> None:
    found = decision(line, metadata={"batch": ""})

    assert isinstance(found, DomainError)
    assert found.code is code


def test_a_complete_upload_is_finalized_with_the_digest_of_the_line() -> None:
    line = BatchLine(upload_id=UPLOAD.id, sha256=SHA256)

    assert decision(line) == Finalized(upload=UPLOAD, sha256=SHA256)


@pytest.mark.parametrize(
    ("upload", "code"),
    [
        (replace(UPLOAD, stored=(0,)), ErrorCode.UPLOAD_INCOMPLETE),
        (replace(UPLOAD, status=UploadStatus.FINALIZED), ErrorCode.UPLOAD_NOT_OPEN),
        (replace(UPLOAD, expires_at=NOW), ErrorCode.UPLOAD_EXPIRED),
        (replace(UPLOAD, size=101), ErrorCode.FILE_TOO_LARGE),
        (replace(UPLOAD, sha256="1" * 64), ErrorCode.FILE_DIGEST_MISMATCH),
        (
            replace(UPLOAD, content_type=None, sniffed_type="image/png"),
            ErrorCode.TYPE_NOT_ALLOWED,
        ),
    ],
)
def test_an_upload_that_cannot_be_finalized_is_refused(upload: OpenUpload, code: ErrorCode) -> None:
    found = decision(BatchLine(upload_id=upload.id, sha256=SHA256), upload=upload)

    assert isinstance(found, DomainError)
    assert found.code is code


@pytest.mark.parametrize(
    "line", [BatchLine(object_key=KEY), BatchLine(upload_id=UPLOAD.id)], ids=["object", "upload"]
)
def test_a_line_beyond_the_quota_of_bytes_is_refused(line: BatchLine) -> None:
    full = replace(TENANT, usage=replace(TENANT.usage, total_bytes=1001))

    found = decision(line, tenant=full)

    assert isinstance(found, DomainError)
    assert found.code is ErrorCode.QUOTA_EXCEEDED
