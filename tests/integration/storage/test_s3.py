"""Behaviour of the adapter with real stores, beyond the contract of the port."""

from collections.abc import Callable, Iterator
from threading import Event

import pytest
from botocore.exceptions import ConnectionClosedError
from pydantic import SecretStr
from structlog.testing import capture_logs

from pipeline.storage.errors import MultipartGone, ObjectExists
from pipeline.storage.s3 import ChecksumMode, S3Storage
from schemas.errors import StoreMisconfigured, StoreRejected
from schemas.object_keys import ObjectKey
from schemas.runtime.s3 import client
from schemas.settings import ObjectStoreSettings
from tests.contract.test_storage_port import FIRST, LAST, body
from tests.store_behaviour import StoreBehaviour

KEY = ObjectKey("originals/tenant/upload")


@pytest.fixture
def settings(object_store_settings: ObjectStoreSettings) -> ObjectStoreSettings:
    return object_store_settings.model_copy(update={"s3_attempts": 2})


@pytest.fixture
def storage_that_loses(settings: ObjectStoreSettings) -> Iterator[Callable[[str], S3Storage]]:
    """Makes storage that loses the first answer to one kind of request."""
    connected = client(settings)

    def losing(operation: str) -> S3Storage:
        answers: list[object] = []

        def lose(**answer: object) -> None:
            answers.append(answer)
            if len(answers) == 1:
                raise ConnectionClosedError(endpoint_url="https://store")

        connected.meta.events.register(f"before-parse.s3.{operation}", lose)
        return S3Storage(connected, bucket=settings.s3_bucket, attempts=2)

    yield losing
    connected.close()


def put(storage: S3Storage, content: bytes = b"bytes") -> None:
    storage.put(KEY, body=body(content), content_type="text/plain", abandoned=Event())


def test_listings_continue_after_their_first_page(settings: ObjectStoreSettings) -> None:
    storage = S3Storage.connect(settings, page_size=2)
    multiparts = {storage.create_multipart(KEY, content_type="text/plain") for _ in range(5)}
    multipart = next(iter(multiparts))
    for number in range(1, 6):
        content = body(str(number).encode())
        storage.upload_part(multipart, number=number, body=content, abandoned=Event())

    assert [part.number for part in storage.list_parts(multipart)] == [1, 2, 3, 4, 5]
    assert set(storage.open_multiparts(KEY)) == multiparts
    storage.close()


@pytest.mark.parametrize("mode", ["auto", "when_required"])
def test_every_store_accepts_the_checksum_modes_auto_and_when_required(
    settings: ObjectStoreSettings, mode: str
) -> None:
    storage = S3Storage.connect(settings.model_copy(update={"s3_checksum_mode": mode}))

    put(storage)

    assert storage.head(KEY).size_bytes == 5
    storage.close()


def test_a_crc32_is_accepted_or_refused_as_expected(
    settings: ObjectStoreSettings, behaviour: StoreBehaviour
) -> None:
    storage = S3Storage.connect(
        settings.model_copy(update={"s3_checksum_mode": ChecksumMode.WHEN_SUPPORTED})
    )

    if behaviour.takes_crc32:
        put(storage)
        assert storage.head(KEY).size_bytes == 5
    else:
        with pytest.raises(StoreRejected, match="MissingContentLength"):
            put(storage)
    storage.close()


def test_a_wrong_crc32_is_refused_or_ignored_as_expected(
    settings: ObjectStoreSettings, behaviour: StoreBehaviour
) -> None:
    connected = client(settings)

    def send() -> None:
        connected.put_object(
            Bucket=settings.s3_bucket, Key=KEY, Body=b"bytes", ChecksumCRC32="AAAAAA=="
        )

    if behaviour.checks_crc32:
        with pytest.raises(connected.exceptions.ClientError, match="BadDigest"):
            send()
    else:
        send()
    connected.close()


def test_the_checksum_mode_is_probed_once_and_the_probe_is_deleted(
    settings: ObjectStoreSettings,
) -> None:
    storage = S3Storage.connect(settings)
    multipart = storage.create_multipart(KEY, content_type="text/plain")

    with capture_logs() as logs:
        for number in (1, 2):
            storage.upload_part(multipart, number=number, body=body(LAST), abandoned=Event())

    assert [(line["event"], line["mode"], line["reason"]) for line in logs] == [
        ("store.checksum_mode", "when_required", "the store checks Content-MD5")
    ]
    assert list(storage.objects_under("")) == []
    assert [listed.multipart for listed in storage.multiparts_under("")] == [multipart]
    storage.close()


def test_a_put_whose_answer_was_lost_has_stored_the_object(
    storage_that_loses: Callable[[str], S3Storage], behaviour: StoreBehaviour
) -> None:
    storage = storage_that_loses("PutObject")

    if behaviour.honours_if_none_match:
        with pytest.raises(ObjectExists):
            put(storage)
    else:
        put(storage)

    assert storage.head(KEY).etag == body(b"bytes").md5.hex()


def test_a_completion_whose_answer_was_lost_has_made_the_object(
    storage_that_loses: Callable[[str], S3Storage], behaviour: StoreBehaviour
) -> None:
    storage = storage_that_loses("CompleteMultipartUpload")
    multipart = storage.create_multipart(KEY, content_type="text/plain")
    part = storage.upload_part(multipart, number=1, body=body(LAST), abandoned=Event())

    if behaviour.remembers_completed:
        storage.complete(multipart, parts=[part])
    else:
        with pytest.raises(MultipartGone):
            storage.complete(multipart, parts=[part])

    assert storage.head(KEY).size_bytes == len(LAST)
    assert storage.open_multiparts(KEY) == []


def test_a_part_whose_answer_was_lost_is_sent_again(
    storage_that_loses: Callable[[str], S3Storage],
) -> None:
    storage = storage_that_loses("UploadPart")
    multipart = storage.create_multipart(KEY, content_type="text/plain")

    part = storage.upload_part(multipart, number=1, body=body(FIRST), abandoned=Event())

    assert storage.list_parts(multipart) == [part]


def test_an_untrusted_certificate_is_a_misconfiguration(
    settings: ObjectStoreSettings,
) -> None:
    is_encrypted = str(settings.s3_endpoint_url).startswith("https")
    storage = S3Storage.connect(settings.model_copy(update={"s3_ca_bundle": None}))

    if is_encrypted:
        with pytest.raises(StoreMisconfigured, match="certificate"):
            list(storage.objects_under(""))
    else:
        assert list(storage.objects_under("")) == []
    storage.close()


def test_wrong_credentials_are_a_misconfiguration_and_not_in_the_error(
    settings: ObjectStoreSettings,
) -> None:
    secret = "not-the-secret"  # noqa: S105  # invented, to search for it in the error
    storage = S3Storage.connect(
        settings.model_copy(update={"s3_secret_access_key": SecretStr(secret)})
    )

    with pytest.raises(StoreMisconfigured) as refused:
        put(storage)

    assert secret not in str(refused.value)
    assert settings.s3_access_key_id.get_secret_value() not in str(refused.value)
    storage.close()


def test_a_missing_bucket_is_a_misconfiguration(
    settings: ObjectStoreSettings,
) -> None:
    storage = S3Storage.connect(settings.model_copy(update={"s3_bucket": "no-such-bucket"}))

    with pytest.raises(StoreMisconfigured, match="NoSuchBucket"):
        storage.create_multipart(KEY, content_type="text/plain")
    storage.close()
