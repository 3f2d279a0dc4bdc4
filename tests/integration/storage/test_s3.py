"""What only shows between the adapter and a network."""

from __future__ import annotations

import socket
from datetime import timedelta
from threading import Event
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from pipeline.storage.errors import StoreMisconfigured, StoreUnavailable
from pipeline.storage.s3 import S3Storage
from schemas.object_keys import ObjectKey
from tests.contract.test_storage_port import body

if TYPE_CHECKING:
    from schemas.settings import ObjectStoreSettings

pytestmark = pytest.mark.integration

KEY = ObjectKey("originals/tenant/upload")


def test_listings_do_not_end_with_their_first_page(
    object_store_settings: ObjectStoreSettings,
) -> None:
    storage = S3Storage.connect(object_store_settings, page_size=2)
    multiparts = {storage.create_multipart(KEY, content_type="text/plain") for _ in range(5)}
    multipart = next(iter(multiparts))
    for number in range(1, 6):
        content = body(str(number).encode())
        storage.upload_part(multipart, number=number, body=content, abandoned=Event())

    assert [part.number for part in storage.list_parts(multipart)] == [1, 2, 3, 4, 5]
    assert set(storage.open_multiparts(KEY)) == multiparts
    storage.close()


@pytest.mark.parametrize("mode", ["when_required", "when_supported"])
def test_either_checksum_mode_stores_the_bytes(
    object_store_settings: ObjectStoreSettings, mode: str
) -> None:
    storage = S3Storage.connect(object_store_settings.model_copy(update={"s3_checksum_mode": mode}))
    storage.put(KEY, body=body(b"bytes"), content_type="text/plain", abandoned=Event())

    assert storage.head(KEY).size_bytes == 5
    storage.close()


def test_wrong_credentials_are_refused_and_not_repeated_in_the_error(
    object_store_settings: ObjectStoreSettings,
) -> None:
    secret = "not-the-secret"  # noqa: S105  # made up, to look for it in the error
    storage = S3Storage.connect(
        object_store_settings.model_copy(update={"s3_secret_access_key": SecretStr(secret)})
    )

    with pytest.raises(StoreMisconfigured) as refused:
        storage.put(KEY, body=body(b"bytes"), content_type="text/plain", abandoned=Event())

    assert secret not in str(refused.value)
    assert object_store_settings.s3_access_key_id.get_secret_value() not in str(refused.value)
    storage.close()


def test_a_bucket_that_does_not_exist_is_for_an_operator_to_mend(
    object_store_settings: ObjectStoreSettings,
) -> None:
    storage = S3Storage.connect(
        object_store_settings.model_copy(update={"s3_bucket": "no-such-bucket"})
    )

    with pytest.raises(StoreMisconfigured, match="NoSuchBucket"):
        storage.create_multipart(KEY, content_type="text/plain")
    storage.close()


def test_a_store_nobody_listens_at_is_unavailable(
    object_store_settings: ObjectStoreSettings,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    storage = S3Storage.connect(
        object_store_settings.model_copy(
            update={"s3_endpoint_url": f"http://127.0.0.1:{port}", "s3_attempts": 2}
        )
    )

    with pytest.raises(StoreUnavailable):
        storage.head(KEY)
    storage.close()


def test_a_store_that_never_answers_is_unavailable_after_the_read_timeout(
    object_store_settings: ObjectStoreSettings,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        storage = S3Storage.connect(
            object_store_settings.model_copy(
                update={
                    "s3_endpoint_url": f"http://127.0.0.1:{server.getsockname()[1]}",
                    "s3_read_timeout": timedelta(milliseconds=300),
                    "s3_attempts": 1,
                }
            )
        )

        with pytest.raises(StoreUnavailable, match="ReadTimeout"):
            storage.head(KEY)
        storage.close()
