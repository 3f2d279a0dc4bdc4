"""How the adapter reads a store's refusals; what a store really answers is in the contract."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from boto3.session import Session
from botocore.stub import Stubber
from structlog.testing import capture_logs

from pipeline.storage.errors import (
    BodyAltered,
    MultipartGone,
    ObjectMissing,
    StoreMisconfigured,
    StoreRejected,
    StoreUnavailable,
)
from pipeline.storage.port import Body, Multipart
from pipeline.storage.s3 import S3Storage, client
from schemas.object_keys import ObjectKey
from schemas.settings import ObjectStoreSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.errors import DomainError

KEY = ObjectKey("originals/tenant/upload")
MULTIPART = Multipart(KEY, id="multipart")
BODY = Body(b"bytes", md5=hashlib.md5(b"bytes", usedforsecurity=False).digest())
ATTEMPTS = 3
SECRET = "a-secret-nobody-may-see"  # noqa: S105  # made up, to look for it in errors
ACCESS_KEY = "an-access-key-id"


@pytest.fixture
def store() -> Iterator[tuple[S3Storage, Stubber]]:
    stubbed = Session().client(
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
def test_a_refusal_for_good_is_asked_once(
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
def test_a_refusal_that_may_pass_is_asked_again_and_then_reported(
    store: tuple[S3Storage, Stubber], code: str, status: int, error: type[DomainError]
) -> None:
    storage, stubber = store
    for _ in range(ATTEMPTS):
        stubber.add_client_error("upload_part", service_error_code=code, http_status_code=status)

    with pytest.raises(error, match=code) as failure:
        storage.upload_part(MULTIPART, number=1, body=BODY, abandoned=Event())

    assert failure.value.retryable
    stubber.assert_no_pending_responses()


def test_a_store_that_recovers_is_not_an_error(store: tuple[S3Storage, Stubber]) -> None:
    storage, stubber = store
    stubber.add_client_error("upload_part", service_error_code="SlowDown", http_status_code=503)
    stubber.add_response("upload_part", {"ETag": '"etag"'})

    with capture_logs() as logs:
        part = storage.upload_part(MULTIPART, number=1, body=BODY, abandoned=Event())

    assert (part.number, part.size_bytes, part.etag) == (1, 5, "etag")
    assert [(line["event"], line["attempt"]) for line in logs] == [("store.retrying", 1)]


def test_nobody_asks_again_for_what_was_abandoned(store: tuple[S3Storage, Stubber]) -> None:
    storage, stubber = store
    stubber.add_client_error("upload_part", service_error_code="SlowDown", http_status_code=503)
    abandoned = Event()
    abandoned.set()

    with pytest.raises(StoreUnavailable):
        storage.upload_part(MULTIPART, number=1, body=BODY, abandoned=abandoned)


@pytest.mark.parametrize("code", ["404", "NoSuchKey"])
def test_an_object_that_is_not_there_is_missing(
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
def test_an_etag_under_a_kms_key_is_no_digest(
    store: tuple[S3Storage, Stubber], *, encryption: dict[str, str], etag_is_digest: bool
) -> None:
    storage, stubber = store
    answer: dict[str, object] = {"ContentLength": 1, "ETag": '"etag"', **encryption}
    stubber.add_response("head_object", answer)

    assert storage.head(KEY).etag_is_digest is etag_is_digest


def test_neither_errors_nor_logs_tell_credentials(store: tuple[S3Storage, Stubber]) -> None:
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

    told = f"{failure.value} {logs}"
    assert SECRET not in told
    assert ACCESS_KEY not in told


def test_settings_reach_the_client() -> None:
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
        },
    )
    connected = client(settings)
    # The stubs of the library leave the settings of a configuration out.
    config: Any = connected.meta.config
    connected.close()

    assert config.max_pool_connections >= 16
    assert (config.connect_timeout, config.read_timeout) == (3, 7)
    assert config.request_checksum_calculation == "when_supported"
    assert config.retries == {"mode": "standard", "total_max_attempts": 1}
    assert config.s3["addressing_style"] == "path"
