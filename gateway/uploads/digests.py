"""Parsing of `Content-Digest` and `Repr-Digest`.

Source: RFC 9530; the syntax is a dictionary of byte sequences (RFC 8941, 3.2 and 3.3.5).
A crc32c has four bytes, the highest first (RFC 9260, appendix A).
A chunk has no content coding, so both fields describe the same bytes.
"""

import base64
import binascii
import re
from typing import Final

from gateway.staging import ExpectedDigest
from schemas.errors import DomainError, ErrorCode

LENGTHS: Final = {"sha-256": 32, "sha-512": 64, "crc32c": 4}
"""The algorithms that are checked: sha-256 and sha-512 detect tampering, crc32c only damage.

Other algorithms of the registry are broken or weaker, and are ignored.
"""

_MEMBER: Final = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):")


class DigestInvalid(DomainError):
    """A digest field cannot be parsed."""

    code = ErrorCode.DIGEST_INVALID

    def __init__(self, field: str) -> None:
        super().__init__(
            f"{field} is malformed; it looks like sha-256=:<base64 of 32 bytes>: (RFC 9530)"
        )


def parse(value: str, *, field: str) -> list[ExpectedDigest]:
    """Parse one digest field, whose lines are joined with commas.

    Raises:
        DigestInvalid: the field is malformed, or a digest has the wrong length.
    """
    found: dict[str, bytes] = {}
    for member in value.split(",") if value.strip(" \t") else []:
        match = _MEMBER.fullmatch(member.strip(" \t"))
        if match is None:
            raise DigestInvalid(field)
        algorithm, encoded = match.groups()
        try:
            # Padding may be left out (RFC 8941, 4.2.7).
            digest = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except binascii.Error as error:
            raise DigestInvalid(field) from error
        if len(digest) != LENGTHS.get(algorithm, len(digest)):
            raise DigestInvalid(field)
        # The last of repeated keys counts (RFC 8941, 3.2).
        found[algorithm] = digest
    return [
        ExpectedDigest(field=field, algorithm=algorithm, digest=digest)
        for algorithm, digest in found.items()
        if algorithm in LENGTHS
    ]
