import base64
import hashlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import digests
from gateway.http.digests import DigestInvalid
from gateway.staging import BodyHasher, ChunkDigestMismatch, ExpectedDigest

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


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("md5=:CY9rzUYh03PK3k6DJie09g==:", b"test"),
        ("sha=:qUqP5cyxm6YcTAhz05Hph5gvu9M=:", b"test"),
        # The example of RFC 3230's registry for ADLER32: 0x03da0195.
        ("adler=:A9oBlQ==:", b"Wiki"),
        (f"md5=:CY9rzUYh03PK3k6DJie09g==:, {CRC32C.replace('4waSgw', 'hqBywA')}", b"test"),
    ],
)
def test_a_weak_algorithm_is_checked(value: str, content: bytes) -> None:
    verify(parse(value), content)
    with pytest.raises(ChunkDigestMismatch):
        verify(parse(value), content + b"x")


@pytest.mark.parametrize("value", ["", " ", "unixsum=:AAA=:", "blake3=:AAAA:"])
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
        "md5=:AAAA:",
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


def declared(**fields: str | list[str]) -> tuple[ExpectedDigest, ...]:
    """Return the digests of a request with these fields."""
    lines = {name.replace("_", "-"): value for name, value in fields.items()}

    def lines_of(field: str) -> list[str]:
        value = lines.get(field, [])
        return [value] if isinstance(value, str) else value

    return digests.declared(lines_of)


@pytest.mark.parametrize(
    ("field", "value", "content"),
    [
        ("Content_MD5", " CY9rzUYh03PK3k6DJie09g== ", b"test"),
        ("Digest", "MD5=CY9rzUYh03PK3k6DJie09g==", b"test"),
        ("Digest", "SHA=qUqP5cyxm6YcTAhz05Hph5gvu9M=", b"test"),
        ("Digest", "sha-256=n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=", b"test"),
        ("Digest", "id-SHA-256=n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=", b"test"),
        # The examples of the registry of RFC 3230.
        ("Digest", "CRC32c=0a72a4df", b"dog"),
        ("Digest", "crc32c=A72A4DF", b"dog"),
        ("Digest", "ADLER32=03da0195", b"Wiki"),
        ("Digest", "adler32=3DA0195", b"Wiki"),
        ("Digest", "crc32c=86a072c0 , MD5=CY9rzUYh03PK3k6DJie09g==", b"test"),
    ],
)
def test_a_legacy_digest_is_checked(field: str, value: str, content: bytes) -> None:
    found = declared(**{field: value})

    digests.check(content, expected=found)
    with pytest.raises(digests.BodyDigestMismatch, match=f"of {field.replace('_', '-')}"):
        digests.check(content + b"x", expected=found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Content_MD5", ""),
        ("Content_MD5", "098f6bcd4621d373cade4e832627b4f6"),
        ("Content_MD5", ["CY9rzUYh03PK3k6DJie09g==", "x"]),
        ("Content_MD5", "CY9rzUYh03PK3k6DJie09g==, CY9rzUYh03PK3k6DJie09g=="),
        ("Digest", ""),
        ("Digest", "md5"),
        ("Digest", "md5=CY9rzUYh03PK3k6DJie0"),
        ("Digest", "md5=CY9rzUYh03PK3k6DJie09g==,"),
        ("Digest", "sha-256=:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=:"),
        ("Digest", "crc32c=xyz"),
        ("Digest", "adler32=003da0195"),
    ],
)
def test_a_malformed_legacy_field_is_refused(field: str, value: str | list[str]) -> None:
    with pytest.raises(DigestInvalid, match=f"{field.replace('_', '-')} is malformed"):
        declared(**{field: value})


@pytest.mark.parametrize("value", ["unixsum=30637", "UNIXcksum=2", "sha-3=AAAA"])
@pytest.mark.parametrize("supported", ["", "md5=CY9rzUYh03PK3k6DJie09g==, "])
def test_a_legacy_digest_that_cannot_be_checked_is_refused(value: str, supported: str) -> None:
    with pytest.raises(digests.DigestUnsupported, match=value.split("=", maxsplit=1)[0]):
        declared(Digest=supported + value)


def test_the_lines_of_a_legacy_field_are_all_checked() -> None:
    lines = ["md5=CY9rzUYh03PK3k6DJie09g==", "crc32c=0a72a4df"]

    assert [one.algorithm for one in declared(Digest=lines)] == ["md5", "crc32c"]


@pytest.mark.anyio
async def test_the_digests_of_a_streamed_body_are_checked_at_its_end() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"te"
        yield b"st"

    async def read(md5: str) -> list[bytes]:
        expected = declared(Content_MD5=md5)
        return [piece async for piece in digests.checked(body(), expected=expected)]

    assert await read("CY9rzUYh03PK3k6DJie09g==") == [b"te", b"st"]
    with pytest.raises(digests.BodyDigestMismatch, match="the md5 of Content-MD5"):
        await read("AAAAAAAAAAAAAAAAAAAAAA==")
