from gateway.http.idempotency import Claim
from schemas.api.uploads import CreateUpload


def test_a_request_without_a_key_claims_nothing() -> None:
    request = CreateUpload(filename="a", size=1)

    assert Claim.of(None, operation="create_upload", request=request) is None


def test_the_same_request_makes_the_same_claim_in_whatever_order_it_was_written() -> None:
    one = CreateUpload(filename="a", size=1, metadata={"a": "1", "b": "2"})
    other = CreateUpload(size=1, metadata={"b": "2", "a": "1"}, filename="a")

    assert Claim.of("k", operation="o", request=one) == Claim.of("k", operation="o", request=other)


def test_another_request_makes_another_claim() -> None:
    one, other = CreateUpload(filename="a", size=1), CreateUpload(filename="a", size=2)

    assert Claim.of("k", operation="o", request=one) != Claim.of("k", operation="o", request=other)
