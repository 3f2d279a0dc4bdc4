"""The digests that a request declares for its body.

`Content-Digest` and `Repr-Digest` (RFC 9530) are dictionaries of byte sequences (RFC 8941, 3.2
and 3.3.5). `Content-MD5` (RFC 1864) and `Digest` (RFC 3230) are obsolete, but clients that send
them rely on them: a legacy digest is checked or refused. A body has no content coding, so every
field describes the same bytes.
"""

import base64
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from gateway.staging import BodyHasher, ExpectedDigest
from schemas.errors import DomainError, ErrorCode

FIELDS: Final = ("Content-Digest", "Repr-Digest")
CONTENT_MD5: Final = "Content-MD5"
DIGEST: Final = "Digest"

LENGTHS: Final = {"sha-256": 32, "sha-512": 64, "crc32c": 4, "md5": 16, "sha": 20, "adler": 4}
"""The algorithms that are checked; only sha-256 and sha-512 detect tampering, all detect damage.

A crc32c or adler has four bytes, the highest first (RFC 9260, appendix A; RFC 1950, 2.2).
`Content-Digest` and `Repr-Digest` with other algorithms are ignored, as RFC 9530 expects.
"""

LEGACY_ALGORITHMS: Final = {
    "md5": "md5",
    "sha": "sha",
    "sha-256": "sha-256",
    "id-sha-256": "sha-256",
    "sha-512": "sha-512",
    "id-sha-512": "sha-512",
    "crc32c": "crc32c",
    "adler32": "adler",
}
"""The algorithms of `Digest` that are checked, by their names in lower case (RFC 3230, RFC 5843)."""

_MEMBER: Final = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):")
_LEGACY_MEMBER: Final = re.compile(r"([A-Za-z0-9-]+)=([A-Za-z0-9+/]+={0,2})")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{1,8}")

Lines = Callable[[str], Sequence[str]]
"""Returns the lines of a header field."""


class DigestInvalid(DomainError):
    """A digest field cannot be parsed."""

    code = ErrorCode.DIGEST_INVALID

    def __init__(self, field: str) -> None:
        if field == CONTENT_MD5:
            wanted = "it is the base64 of 16 bytes (RFC 1864)"
        elif field == DIGEST:
            wanted = "it looks like sha-256=<base64 of 32 bytes> (RFC 3230)"
        else:
            wanted = "it looks like sha-256=:<base64 of 32 bytes>: (RFC 9530)"
        super().__init__(f"{field} is malformed; {wanted}")


class DigestUnsupported(DomainError):
    """A digest cannot be checked; storing the body would look as if it was."""

    code = ErrorCode.DIGEST_INVALID

    def __init__(self, algorithm: str) -> None:
        super().__init__(
            f"{DIGEST}: {algorithm} cannot be checked; send {', '.join(LEGACY_ALGORITHMS)}"
        )


class BodyDigestMismatch(DomainError):
    """The received body does not have a digest that the client declared; it has no effect."""

    code = ErrorCode.BODY_DIGEST_MISMATCH
    retryable = True

    def __init__(self, expected: ExpectedDigest) -> None:
        super().__init__(f"the received body does not have the {expected}")


def declared(lines: Lines) -> tuple[ExpectedDigest, ...]:
    """Return every digest that a request declares for its body.

    Raises:
        DigestInvalid: a field is malformed.
        DigestUnsupported: a legacy digest cannot be checked.
    """
    return (
        *(one for field in FIELDS for one in parse(", ".join(lines(field)), field=field)),
        *(one for line in lines(CONTENT_MD5) for one in parse_md5(line)),
        *(one for line in lines(DIGEST) for one in parse_legacy(line)),
    )


def parse(value: str, *, field: str) -> list[ExpectedDigest]:
    """Parse one field of RFC 9530, whose lines are joined with commas.

    Raises:
        DigestInvalid: the field is malformed, or a digest has the wrong length.
    """
    found: dict[str, bytes] = {}
    for member in value.split(",") if value.strip(" \t") else []:
        match = _MEMBER.fullmatch(member.strip(" \t"))
        if match is None:
            raise DigestInvalid(field)
        algorithm, encoded = match.groups()
        # The last of repeated keys counts (RFC 8941, 3.2).
        found[algorithm] = _decoded(encoded, field=field, length=LENGTHS.get(algorithm))
    return [
        ExpectedDigest(field=field, algorithm=algorithm, digest=digest)
        for algorithm, digest in found.items()
        if algorithm in LENGTHS
    ]


def parse_md5(value: str) -> list[ExpectedDigest]:
    """Parse `Content-MD5`.

    Raises:
        DigestInvalid: the field is malformed.
    """
    digest = _decoded(value.strip(" \t"), field=CONTENT_MD5, length=LENGTHS["md5"])
    return [ExpectedDigest(field=CONTENT_MD5, algorithm="md5", digest=digest)]


def parse_legacy(value: str) -> list[ExpectedDigest]:
    """Parse a line of `Digest`.

    Raises:
        DigestInvalid: the field is malformed.
        DigestUnsupported: a digest cannot be checked.
    """
    found = []
    for member in value.split(","):
        match = _LEGACY_MEMBER.fullmatch(member.strip(" \t"))
        if match is None:
            raise DigestInvalid(DIGEST)
        name, encoded = match.groups()
        algorithm = LEGACY_ALGORITHMS.get(name.lower())
        if algorithm is None:
            raise DigestUnsupported(name)
        length = LENGTHS[algorithm]
        if algorithm in {"crc32c", "adler"}:
            # The registry of RFC 3230 writes checksums in hexadecimal, also without leading zeros.
            if not _HEX.fullmatch(encoded):
                raise DigestInvalid(DIGEST)
            digest = int(encoded, 16).to_bytes(length, "big")
        else:
            digest = _decoded(encoded, field=DIGEST, length=length)
        found.append(ExpectedDigest(field=DIGEST, algorithm=algorithm, digest=digest))
    return found


def check(body: bytes, *, expected: Sequence[ExpectedDigest]) -> None:
    """Check a whole body.

    Raises:
        BodyDigestMismatch: the body does not have one of the digests.
    """
    if expected:
        hasher = BodyHasher(expected)
        hasher.add(body)
        _check(hasher)


async def checked(
    body: AsyncIterator[bytes], *, expected: Sequence[ExpectedDigest]
) -> AsyncIterator[bytes]:
    """Yield the pieces of a body, and check its digests at its end.

    Raises:
        BodyDigestMismatch: the body does not have one of the digests.
    """
    hasher = BodyHasher(expected)
    async for piece in body:
        if expected:
            hasher.add(piece)
        yield piece
    _check(hasher)


def _check(hasher: BodyHasher) -> None:
    mismatch = hasher.mismatch()
    if mismatch is not None:
        raise BodyDigestMismatch(mismatch)


def _decoded(encoded: str, *, field: str, length: int | None) -> bytes:
    try:
        # Padding may be left out (RFC 8941, 4.2.7).
        digest = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError as error:
        raise DigestInvalid(field) from error
    if length is not None and len(digest) != length:
        raise DigestInvalid(field)
    return digest
