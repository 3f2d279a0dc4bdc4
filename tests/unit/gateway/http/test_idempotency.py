from uuid import uuid4

import msgspec
import pytest

from gateway.http.idempotency import KeyedRequest
from schemas.api.submissions import SubmitReference
from schemas.api.uploads import CreateUpload, FinalizeUpload
from schemas.ids import UploadId


def test_a_request_without_a_key_is_not_keyed() -> None:
    request = CreateUpload(filename="a", size=1)

    assert KeyedRequest.of(None, operation="create_upload", request=request) is None


def test_the_order_of_fields_does_not_matter() -> None:
    one = CreateUpload(filename="a", size=1, metadata={"a": "1", "b": "2"})
    other = CreateUpload(size=1, metadata={"b": "2", "a": "1"}, filename="a")

    assert KeyedRequest.of("k", operation="o", request=one) == KeyedRequest.of(
        "k", operation="o", request=other
    )


@pytest.mark.parametrize(
    "request_without_priority",
    [
        FinalizeUpload(upload_id=UploadId(uuid4())),
        SubmitReference(object_key="incoming/x"),
    ],
)
def test_a_request_without_a_priority_keeps_the_key_that_an_earlier_version_bound(
    request_without_priority: msgspec.Struct,
) -> None:
    assert b"priority" not in msgspec.json.encode(request_without_priority)


def test_different_values_make_a_different_request() -> None:
    one, other = CreateUpload(filename="a", size=1), CreateUpload(filename="a", size=2)

    assert KeyedRequest.of("k", operation="o", request=one) != KeyedRequest.of(
        "k", operation="o", request=other
    )
