"""The adapter's reaction to a store's refusals; the contract tests show what stores answer."""

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
from boto3.session import Session
from botocore.stub import ANY, Stubber
from structlog.testing import capture_logs

from pipeline.storage.errors import (
    CopyUnsupported,
    MultipartGone,
    ObjectExists,
    ObjectMissing,
    PartReplaced,
)
from pipeline.storage.port import Body, Multipart, ObjectRange
from pipeline.storage.s3 import S3Storage
from schemas.errors import (
    BodyAltered,
    DomainError,
    StoreMisconfigured,
    StoreRejected,
    StoreUnavailable,
)
from schemas.object_keys import ObjectKey
from schemas.runtime.s3 import client
from schemas.settings import ObjectStoreSettings

KEY = ObjectKey("originals/tenant/upload")
MULTIPART = Multipart(KEY, id="multipart")
BODY = Body(b"bytes", md5=hashlib.md5(b"bytes", usedforsecurity=False).digest())
ATTEMPTS = 3
SECRET = "a-secret-nobody-may-see"  # noqa: S105  # made up, to look for it in errors
ACCESS_KEY = "an-access-key-id"


@pytest.fixture(scope="module")
def session() -> Session:
    """One session for all tests: creating it reads the library's description of the service."""
    return Session()


@pytest.fixture
def store(session: Session) -> Iterator[tuple[S3Storage, Stubber]]:
    stubbed = session.client(
        "s3", region_name="us-east-1", aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET
    )
    storage = S3Storage(stubbed, bucket="bucket", attempts=ATTEMPTS, first_wait=timedelta(0))
    with Stubber(stubbed) as stubber:
        yield storage, stubber
    storage.close()


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("NoSuchUpload", 404, MultipartGone),
        ("NoSuchKey", 404, MultipartGone),
        ("NoSuchBucket", 404, StoreMisconfigured),
        ("AccessDenied", 403, StoreMisconfigured),
        ("SignatureDoesNotMatch", 403, StoreMisconfigured),
        ("EntityTooSmall", 400, StoreRejected),
        ("NotImplemented", 501, StoreRejected),
    ],
)
def test_a_permanent_refusal_is_not_retried(
    store: tuple[S3Storage, Stubber], code: str, status: int, error: type[DomainError]
) -> None:
    storage, stubber = store
    stubber.add_client_error("upload_part", service_error_code=code, http_status_code=status)

    with pytest.raises(error):
        storage.upload_part(MULTIPART, number=1, body=BODY, abandoned=Event())

    stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("InternalError", 500, StoreUnavailable),
        ("BadGateway", 502, StoreUnavailable),
        ("SlowDown", 503, StoreUnavailable),
        ("GatewayTimeout", 504, StoreUnavailable),
        ("TooManyRequests", 429, StoreUnavailable),
        ("RequestTimeout", 400, StoreUnavailable),
        ("OperationAborted", 409, StoreUnavailable),
        ("BadDigest", 400, BodyAltered),
        ("IncompleteBody", 400, BodyAltered),
    ],
)
def test_a_temporary_refusal_is_retried_and_then_raised(
    store: tuple[S3Storage, Stubber], code: str, status: int, error: type[DomainError]
) -> None:
    storage, stubber = store
    for _ in range(ATTEMPTS):
        stubber.add_client_error("upload_part", service_error_code=code, http_status_code=status)

    with pytest.raises(error, match=code) as failure:
        storage.upload_part(MULTIPART, number=1, body=BODY, abandoned=Event())

    assert failure.value.retryable
    stubber.assert_no_pending_responses()


def test_a_store_that_recovers_raises_nothing(store: tuple[S3Storage, Stubber]) -> None:
    storage, stubber = store
    stubber.add_client_error("upload_part", service_error_code="SlowDown", http_status_code=503)
    stubber.add_response("upload_part", {"ETag": '"etag"'})

    with capture_logs() as logs:
        part = storage.upload_part(MULTIPART, number=1, body=BODY, abandoned=Event())

    assert (part.number, part.size_bytes, part.etag) == (1, 5, "etag")
    assert [(line["event"], line["attempt"]) for line in logs] == [("store.retrying", 1)]


def test_an_abandoned_request_is_not_retried(store: tuple[S3Storage, Stubber]) -> None:
    storage, stubber = store
    stubber.add_client_error("upload_part", service_error_code="SlowDown", http_status_code=503)
    abandoned = Event()
    abandoned.set()

    with pytest.raises(StoreUnavailable):
        storage.upload_part(MULTIPART, number=1, body=BODY, abandoned=abandoned)


def test_an_abandoned_deletion_is_not_retried(
    store: tuple[S3Storage, Stubber],
) -> None:
    storage, stubber = store
    stubber.add_client_error("delete_object", service_error_code="SlowDown", http_status_code=503)
    abandoned = Event()
    abandoned.set()

    with pytest.raises(StoreUnavailable):
        storage.delete(KEY, abandoned=abandoned)


def test_a_part_replaced_before_completion_is_retryable(
    store: tuple[S3Storage, Stubber],
) -> None:
    storage, stubber = store
    stubber.add_client_error(
        "complete_multipart_upload", service_error_code="InvalidPart", http_status_code=400
    )

    with pytest.raises(PartReplaced) as replaced:
        storage.complete(MULTIPART, parts=[])

    assert replaced.value.retryable


@pytest.mark.parametrize("code", ["404", "NoSuchKey"])
def test_a_missing_object_is_reported_as_missing(
    store: tuple[S3Storage, Stubber], code: str
) -> None:
    storage, stubber = store
    stubber.add_client_error("head_object", service_error_code=code, http_status_code=404)

    with pytest.raises(ObjectMissing):
        storage.head(KEY)


@pytest.mark.parametrize(
    ("encryption", "etag_is_digest"),
    [
        ({}, True),
        ({"ServerSideEncryption": "AES256"}, True),
        ({"ServerSideEncryption": "aws:kms"}, False),
    ],
)
def test_the_etag_of_an_object_encrypted_with_a_kms_key_is_not_a_digest(
    store: tuple[S3Storage, Stubber], *, encryption: dict[str, str], etag_is_digest: bool
) -> None:
    storage, stubber = store
    answer: dict[str, object] = {"ContentLength": 1, "ETag": '"etag"', **encryption}
    stubber.add_response("head_object", answer)

    stubber.add_response("upload_part", {"ETag": '"etag"', **encryption})

    assert storage.head(KEY).etag_is_digest is etag_is_digest
    part = storage.upload_part(MULTIPART, number=1, body=BODY, abandoned=Event())
    assert part.etag_is_digest is etag_is_digest


def test_errors_and_logs_contain_no_credentials(store: tuple[S3Storage, Stubber]) -> None:
    storage, stubber = store
    echo = {"AWSAccessKeyId": ACCESS_KEY, "StringToSign": f"AWS4-HMAC-SHA256 {ACCESS_KEY}"}
    for code, status in (("SlowDown", 503), ("SignatureDoesNotMatch", 403)):
        stubber.add_client_error(
            "head_object",
            service_error_code=code,
            service_message=f"no such key {ACCESS_KEY}",
            http_status_code=status,
            service_error_meta=echo,
        )

    with capture_logs() as logs, pytest.raises(StoreMisconfigured) as failure:
        storage.head(KEY)

    shown = f"{failure.value} {logs}"
    assert SECRET not in shown
    assert ACCESS_KEY not in shown


def test_the_client_uses_the_settings() -> None:
    settings = ObjectStoreSettings.model_validate(
        {
            "s3_endpoint_url": "http://127.0.0.1:1",
            "s3_bucket": "bucket",
            "s3_access_key_id": ACCESS_KEY,
            "s3_secret_access_key": SECRET,
            "s3_parallel_parts": 16,
            "s3_connect_timeout": timedelta(seconds=3),
            "s3_read_timeout": timedelta(seconds=7),
            "s3_checksum_mode": "when_supported",
            "s3_ca_bundle": "authority.pem",
        },
    )
    connected = client(settings)
    # The library's stubs do not declare the attributes of a configuration.
    config: Any = connected.meta.config
    connected.close()

    assert config.max_pool_connections >= 16
    assert (config.connect_timeout, config.read_timeout) == (3, 7)
    # The adapter requests a checksum for each request separately.
    assert config.request_checksum_calculation == "when_required"
    assert config.retries == {"mode": "standard", "total_max_attempts": 1}
    assert config.s3["addressing_style"] == "path"


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("PreconditionFailed", 412, ObjectExists),
        # The answer of a completion that fails after its answer has started with status 200.
        ("PreconditionFailed", 500, ObjectExists),
        ("412", 412, ObjectExists),
    ],
)
def test_a_conditional_write_to_an_existing_object_is_not_retried(
    store: tuple[S3Storage, Stubber], code: str, status: int, error: type[DomainError]
) -> None:
    storage, stubber = store
    for call in ("put_object", "complete_multipart_upload"):
        stubber.add_client_error(call, service_error_code=code, http_status_code=status)

    with pytest.raises(error):
        storage.put(KEY, body=BODY, content_type="text/plain", abandoned=Event())
    with pytest.raises(error):
        storage.complete(MULTIPART, parts=[])

    stubber.assert_no_pending_responses()


def test_a_conflict_of_two_conditional_writes_is_retried(
    store: tuple[S3Storage, Stubber],
) -> None:
    storage, stubber = store
    stubber.add_client_error(
        "put_object", service_error_code="ConditionalRequestConflict", http_status_code=409
    )
    stubber.add_response("put_object", {})

    storage.put(KEY, body=BODY, content_type="text/plain", abandoned=Event())

    stubber.assert_no_pending_responses()


def test_after_a_refused_conditional_write_all_writes_are_unconditional(
    store: tuple[S3Storage, Stubber],
) -> None:
    storage, stubber = store
    put = {
        "Bucket": "bucket",
        "Key": KEY,
        "Body": ANY,
        "ContentLength": 5,
        "ContentMD5": ANY,
        "ContentType": "text/plain",
    }
    stubber.add_client_error(
        "put_object",
        service_error_code="NotImplemented",
        http_status_code=501,
        expected_params={**put, "IfNoneMatch": "*"},
    )
    stubber.add_response("put_object", {}, put)
    stubber.add_response("put_object", {}, put)

    for _ in range(2):
        storage.put(KEY, body=BODY, content_type="text/plain", abandoned=Event())

    stubber.assert_no_pending_responses()


def test_a_write_that_is_unsupported_even_without_the_condition_is_rejected(
    store: tuple[S3Storage, Stubber],
) -> None:
    storage, stubber = store
    for _ in range(2):
        stubber.add_client_error(
            "put_object", service_error_code="NotImplemented", http_status_code=501
        )

    with pytest.raises(StoreRejected):
        storage.put(KEY, body=BODY, content_type="text/plain", abandoned=Event())

    stubber.assert_no_pending_responses()


def trial_of_a_copy(stubber: Stubber, *, status: int = 200, code: str = "") -> None:
    """Expect the multipart upload with which the adapter tests whether the store copies parts."""
    stubber.add_response("create_multipart_upload", {"UploadId": "trial"})
    if status == 200:
        stubber.add_response("upload_part_copy", {"CopyPartResult": {"ETag": '"byte"'}})
    else:
        stubber.add_client_error(
            "upload_part_copy", service_error_code=code, http_status_code=status
        )
    stubber.add_response("abort_multipart_upload", {})


SOURCE = ObjectRange(ObjectKey("staging/chunk"), offset=10, size_bytes=5)


@pytest.mark.parametrize(
    ("code", "status"), [("NotImplemented", 501), ("MethodNotAllowed", 405), ("405", 405)]
)
def test_a_store_that_does_not_copy_parts_is_probed_once(
    store: tuple[S3Storage, Stubber], code: str, status: int
) -> None:
    storage, stubber = store
    trial_of_a_copy(stubber, status=status, code=code)

    for number in (1, 2):
        with pytest.raises(CopyUnsupported):
            storage.copy_part(MULTIPART, number=number, source=SOURCE)

    stubber.assert_no_pending_responses()


def test_an_inconclusive_copy_probe_is_repeated(
    store: tuple[S3Storage, Stubber],
) -> None:
    storage, stubber = store
    trial_of_a_copy(stubber, status=503, code="SlowDown")
    trial_of_a_copy(stubber)
    stubber.add_response("upload_part_copy", {"CopyPartResult": {"ETag": '"copied"'}})

    part = storage.copy_part(MULTIPART, number=1, source=SOURCE)

    assert (part.number, part.size_bytes, part.etag) == (1, 5, "copied")
    stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("NoSuchUpload", 404, MultipartGone),
        ("NoSuchKey", 404, ObjectMissing),
        ("InvalidRequest", 400, CopyUnsupported),
        ("InvalidArgument", 400, StoreRejected),
        ("AccessDenied", 403, StoreMisconfigured),
    ],
)
def test_a_refused_copy_raises_the_matching_error(
    store: tuple[S3Storage, Stubber], code: str, status: int, error: type[DomainError]
) -> None:
    storage, stubber = store
    trial_of_a_copy(stubber)
    stubber.add_client_error("upload_part_copy", service_error_code=code, http_status_code=status)

    with pytest.raises(error):
        storage.copy_part(MULTIPART, number=1, source=SOURCE)


def keys(count: int) -> list[ObjectKey]:
    return [ObjectKey(f"staging/{number}") for number in range(count)]


def test_objects_are_deleted_a_thousand_at_a_time(store: tuple[S3Storage, Stubber]) -> None:
    storage, stubber = store
    for first, last in ((0, 1_000), (1_000, 2_000), (2_000, 2_001)):
        objects = [{"Key": key} for key in keys(2_001)[first:last]]
        stubber.add_response(
            "delete_objects",
            {},
            {"Bucket": "bucket", "Delete": {"Objects": objects, "Quiet": True}},
        )

    storage.delete_all(keys(2_001))

    stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "error"),
    [("AccessDenied", StoreMisconfigured), ("MalformedKey", StoreRejected)],
)
def test_a_failed_deletion_within_a_batch_is_raised(
    store: tuple[S3Storage, Stubber], code: str, error: type[DomainError]
) -> None:
    storage, stubber = store
    stubber.add_response("delete_objects", {"Errors": [{"Key": "staging/1", "Code": code}]})

    with pytest.raises(error, match=code):
        storage.delete_all(keys(3))


def test_objects_that_fail_temporarily_in_a_batch_deletion_are_retried(
    store: tuple[S3Storage, Stubber],
) -> None:
    storage, stubber = store
    failures = [
        {"Key": "staging/0", "Code": "NoSuchKey"},
        {"Key": "staging/1", "Code": "InternalError"},
    ]
    stubber.add_response("delete_objects", {"Errors": failures})
    stubber.add_response("delete_objects", {"Errors": failures[:1]})

    storage.delete_all(keys(2))

    stubber.assert_no_pending_responses()


def test_without_batch_deletion_objects_are_deleted_one_by_one(
    store: tuple[S3Storage, Stubber],
) -> None:
    storage, stubber = store
    stubber.add_client_error(
        "delete_objects", service_error_code="NotImplemented", http_status_code=501
    )
    for _ in range(4):
        stubber.add_response("delete_object", {})

    storage.delete_all(keys(2))
    storage.delete_all(keys(2))

    stubber.assert_no_pending_responses()


def test_a_retried_page_does_not_restart_the_listing(
    store: tuple[S3Storage, Stubber],
) -> None:
    storage, stubber = store
    page = {"Key": "a", "Size": 1, "LastModified": datetime.now(UTC)}
    stubber.add_response(
        "list_objects_v2",
        {"Contents": [page], "IsTruncated": True, "NextContinuationToken": "more"},
    )
    stubber.add_client_error("list_objects_v2", service_error_code="SlowDown", http_status_code=503)
    stubber.add_response(
        "list_objects_v2",
        {"Contents": [{**page, "Key": "b"}], "IsTruncated": False},
        {"Bucket": "bucket", "Prefix": "", "MaxKeys": 1_000, "ContinuationToken": "more"},
    )

    assert [listed.key for listed in storage.objects_under("")] == ["a", "b"]


class NothingIsSentError(Exception):
    """Stops a request before it is sent."""


def test_a_batch_deletion_carries_content_md5() -> None:
    settings = ObjectStoreSettings.model_validate(
        {
            "s3_bucket": "bucket",
            "s3_access_key_id": ACCESS_KEY,
            "s3_secret_access_key": SECRET,
        }
    )
    connected = client(settings)
    sent: list[Any] = []

    def note(request: object, **_: object) -> None:
        sent.append(request)
        raise NothingIsSentError

    connected.meta.events.register("before-send.s3.DeleteObjects", note)

    with pytest.raises(NothingIsSentError):
        connected.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "a"}]})
    connected.close()

    digest = hashlib.md5(sent[0].body, usedforsecurity=False).digest()
    assert sent[0].headers["Content-MD5"] == base64.b64encode(digest)
    assert b"content-md5" in sent[0].headers["Authorization"]
