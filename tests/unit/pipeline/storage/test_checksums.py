"""How the adapter finds out whether bodies need a CRC32."""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from threading import Event

import pytest
from boto3.session import Session
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from mypy_boto3_s3 import S3Client

from pipeline.storage.port import Body
from pipeline.storage.s3 import S3Storage
from pipeline.storage.s3.checksums import ChecksumMode, Checksums, Probe, ProbeResult
from schemas.errors import StoreUnavailable
from schemas.object_keys import ObjectKey

CONTENT = b"random"
ETAG = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture
def stub() -> Iterator[tuple[S3Client, Stubber]]:
    client = Session().client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106  # required by boto3
    )
    with Stubber(client) as stubber:
        yield client, stubber
    client.close()


def run_probe(stub: tuple[S3Client, Stubber]) -> ProbeResult:
    client, stubber = stub
    result = Probe(client, bucket="bucket", random_bytes=lambda _: CONTENT).run()
    stubber.assert_no_pending_responses()
    return result


def ignores_the_md5(stubber: Stubber) -> None:
    stubber.add_response("put_object", {})
    stubber.add_response("delete_object", {})


def accepts_an_object_with_crc32(stubber: Stubber, *, stored: bytes = CONTENT) -> None:
    stubber.add_response(
        "put_object",
        {},
        {"Bucket": "bucket", "Key": ANY, "Body": CONTENT, "ChecksumAlgorithm": "CRC32"},
    )
    body = StreamingBody(BytesIO(stored), len(stored))
    stubber.add_response("get_object", {"Body": body, "ContentLength": len(stored)})
    stubber.add_response("delete_object", {})


def test_a_store_that_checks_the_md5_gets_no_crc32(stub: tuple[S3Client, Stubber]) -> None:
    _, stubber = stub
    stubber.add_client_error("put_object", service_error_code="BadDigest", http_status_code=400)

    assert run_probe(stub).mode is ChecksumMode.WHEN_REQUIRED


def test_a_store_that_ignores_the_md5_gets_a_crc32(stub: tuple[S3Client, Stubber]) -> None:
    _, stubber = stub
    ignores_the_md5(stubber)
    accepts_an_object_with_crc32(stubber)
    stubber.add_response("create_multipart_upload", {"UploadId": "probe"})
    stubber.add_response("upload_part", {"ETag": f'"{ETAG}"'})
    stubber.add_response("abort_multipart_upload", {})

    assert run_probe(stub).mode is ChecksumMode.WHEN_SUPPORTED


def test_a_store_that_stores_the_trailer_as_data_gets_no_crc32(
    stub: tuple[S3Client, Stubber],
) -> None:
    _, stubber = stub
    ignores_the_md5(stubber)
    accepts_an_object_with_crc32(stubber, stored=b"6\r\nrandom\r\n0\r\n")

    assert run_probe(stub).mode is ChecksumMode.WHEN_REQUIRED


def test_a_store_that_refuses_parts_with_a_trailer_gets_no_crc32(
    stub: tuple[S3Client, Stubber],
) -> None:
    _, stubber = stub
    ignores_the_md5(stubber)
    accepts_an_object_with_crc32(stubber)
    stubber.add_response("create_multipart_upload", {"UploadId": "probe"})
    stubber.add_client_error(
        "upload_part", service_error_code="MissingContentLength", http_status_code=411
    )
    stubber.add_response("abort_multipart_upload", {})

    assert run_probe(stub).mode is ChecksumMode.WHEN_REQUIRED


@pytest.mark.parametrize(
    ("code", "status"), [("AccessDenied", 403), ("NoSuchBucket", 404), ("InvalidDigest", 400)]
)
def test_a_store_that_refuses_the_probe_gets_no_crc32(
    stub: tuple[S3Client, Stubber], code: str, status: int
) -> None:
    _, stubber = stub
    stubber.add_client_error("put_object", service_error_code=code, http_status_code=status)

    assert run_probe(stub).mode is ChecksumMode.WHEN_REQUIRED


def test_an_unavailable_store_leaves_the_mode_undecided(stub: tuple[S3Client, Stubber]) -> None:
    client, stubber = stub
    storage = S3Storage(client, bucket="bucket", attempts=1, checksum_mode=ChecksumMode.AUTO)
    body = Body(CONTENT, md5=bytes.fromhex(ETAG))
    key = ObjectKey("originals/tenant/upload")
    stubber.add_client_error("put_object", service_error_code="SlowDown", http_status_code=503)

    with pytest.raises(StoreUnavailable):
        storage.put(key, body=body, content_type="text/plain", abandoned=Event())

    stubber.add_client_error("put_object", service_error_code="BadDigest", http_status_code=400)
    stubber.add_response("put_object", {})
    stubber.add_response("put_object", {})
    for _ in range(2):
        storage.put(key, body=body, content_type="text/plain", abandoned=Event())
    stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        (ChecksumMode.WHEN_SUPPORTED, {"ChecksumAlgorithm": "CRC32"}),
        (ChecksumMode.WHEN_REQUIRED, {}),
    ],
)
def test_a_configured_mode_is_not_probed(mode: ChecksumMode, arguments: dict[str, str]) -> None:
    def probe() -> ProbeResult:
        pytest.fail("the store was probed")

    assert Checksums(mode, probe=probe).body_arguments() == arguments
