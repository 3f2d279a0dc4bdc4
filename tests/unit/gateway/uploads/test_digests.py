import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.staging import BodyHasher, ChunkDigestMismatch, ExpectedDigest
from gateway.uploads import digests
from gateway.uploads.digests import DigestInvalid

# RFC 9530, appendix B.1: the digests of this representation.
CONTENT = b'{"hello": "world"}\n'
SHA_256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
SHA_512 = (
    "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCs"
    "yRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:"
)


def parse(value: str) -> list[ExpectedDigest]:
    return digests.parse(value, field="Content-Digest")


def verify(expected: list[ExpectedDigest], *blocks: bytes) -> bytes:
    hasher = BodyHasher(expected)
    for block in blocks:
        hasher.update_crc32c(block)
        hasher.update(memoryview(block))
    return hasher.verify()


@pytest.mark.parametrize("value", [SHA_256, SHA_512, f"{SHA_256}, {SHA_512}"])
def test_the_example_of_the_rfc_has_the_published_digests(value: str) -> None:
    assert verify(parse(value), CONTENT[:5], CONTENT[5:]) == hashlib.sha256(CONTENT).digest()


@pytest.mark.parametrize("value", [SHA_256, SHA_512, f"{SHA_256}, {SHA_512}"])
def test_one_changed_byte_is_a_mismatch(value: str) -> None:
    with pytest.raises(ChunkDigestMismatch):
        verify(parse(value), CONTENT[:-1] + b"x")


# The check value of CRC-32C over the digits 1 to 9 is 0xE3069283 (RFC 9260 uses the same CRC).
CRC32C = "crc32c=:4waSgw==:"


def test_a_crc32c_has_its_highest_byte_first() -> None:
    verify(parse(CRC32C), b"1234", b"56789")
    with pytest.raises(ChunkDigestMismatch, match="the crc32c of Content-Digest"):
        verify(parse(CRC32C), b"123456780")


def test_one_wrong_digest_among_correct_digests_is_a_mismatch() -> None:
    other = hashlib.sha256(b"other").digest()
    wrong = ExpectedDigest(field="Repr-Digest", algorithm="sha-256", digest=other)

    with pytest.raises(ChunkDigestMismatch, match="the sha-256 of Repr-Digest"):
        verify([*parse(SHA_256), wrong], CONTENT)


@pytest.mark.parametrize("value", ["", " ", "md5=:Sd/dVLAcvNLSq16eXua5uQ==:", "adler=:A+YD7A==:"])
def test_unknown_algorithms_are_ignored(value: str) -> None:
    assert parse(value) == []


def test_the_last_digest_of_a_repeated_algorithm_counts() -> None:
    other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()

    verify(parse(f"sha-256=:{other}:, {SHA_256}"), CONTENT)


def test_padding_may_be_left_out() -> None:
    assert parse(SHA_256.replace("=:", ":", 2).replace("sha-256:", "sha-256=:")) == parse(SHA_256)


@pytest.mark.parametrize(
    "value",
    [
        "sha-256",
        "sha-256=",
        "sha-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=",
        "SHA-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
        "sha-256=:RK_0qy18MlBSVnWgjwz6lZEWjP_lF5HF9bvEF8FabDg=:",
        "sha-256=::",
        "sha-256=:AAAA:",
        "sha-512=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
        "sha-256=:A:",
        f"{SHA_256},",
        f",{SHA_256}",
        f"{SHA_256} {SHA_256}",
        "md5=5",
        "sha-256=:\x00:",
        "crc32c=:AAAA:",
    ],
)
def test_a_malformed_field_is_refused(value: str) -> None:
    with pytest.raises(DigestInvalid, match="Content-Digest is malformed"):
        parse(value)


@given(st.text())
def test_any_text_is_parsed_or_refused(value: str) -> None:
    try:
        found = parse(value)
    except DigestInvalid:
        return
    assert all(len(one.digest) == digests.LENGTHS[one.algorithm] for one in found)


@given(st.binary(), st.sampled_from(sorted(digests.LENGTHS)))
def test_an_encoded_digest_is_parsed(digest: bytes, algorithm: str) -> None:
    digest = (digest * 64 + bytes(64))[: digests.LENGTHS[algorithm]]
    value = f"{algorithm}=:{base64.b64encode(digest).decode()}:"

    assert parse(value) == [
        ExpectedDigest(field="Content-Digest", algorithm=algorithm, digest=digest),
    ]
