"""`Content-Digest` and `Repr-Digest`, read and checked.

Source: RFC 9530; the syntax is a dictionary of byte sequences (RFC 8941, 3.2 and 3.3.5).
A crc32c is four bytes, the highest first (RFC 9260, appendix A).
A chunk is sent as it is, so both fields speak of the same bytes.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import google_crc32c

from schemas.errors import DomainError, ErrorCode

LENGTHS: Final = {"sha-256": 32, "sha-512": 64, "crc32c": 4}
"""What is checked: the first two against anybody, the last against accidents.

Others in the registry are broken or weaker, and are ignored.
"""

_MEMBER: Final = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):")


class DigestInvalid(DomainError):
    """A digest field cannot be read."""

    code = ErrorCode.DIGEST_INVALID

    def __init__(self, field: str) -> None:
        super().__init__(
            f"{field} is malformed; it looks like sha-256=:<base64 of 32 bytes>: (RFC 9530)"
        )


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A digest the client says the body has."""

    field: str
    algorithm: str
    digest: bytes


def parse(value: str, *, field: str) -> list[Expected]:
    """Read one digest field; its lines are joined with commas.

    Raises:
        DigestInvalid: it is malformed, or a digest has the wrong length.
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
        # Of a repeated key the last one counts (RFC 8941, 3.2).
        found[algorithm] = digest
    return [
        Expected(field=field, algorithm=algorithm, digest=digest)
        for algorithm, digest in found.items()
        if algorithm in LENGTHS
    ]


class Digester:
    """Digests a body as it comes, and says at the end what of the expected was not so.

    Every byte passes twice: through `see` in the pieces it came in, and through
    `update` in the blocks it is kept in.
    """

    def __init__(self, expected: Iterable[Expected]) -> None:
        self._expected = tuple(expected)
        self._crc32c = 0
        wanted = {"sha-256", *(one.algorithm for one in self._expected)} - {"crc32c"}
        self._hashes = {name: hashlib.new(name.replace("-", "")) for name in sorted(wanted)}

    def see(self, piece: bytes) -> None:
        """Take the next bytes for what costs next to nothing, so that nobody has to wait for it."""
        self._crc32c = google_crc32c.extend(self._crc32c, piece)

    def update(self, block: memoryview) -> None:
        """Take the next bytes for what takes its time."""
        for running in self._hashes.values():
            running.update(block)

    @property
    def sha256(self) -> bytes:
        return self._hashes["sha-256"].digest()

    @property
    def crc32c(self) -> bytes:
        return self._crc32c.to_bytes(4, "big")

    def mismatch(self) -> Expected | None:
        """Return the first expected digest the body does not have."""
        for one in self._expected:
            if self._actual(one.algorithm) != one.digest:
                return one
        return None

    def _actual(self, algorithm: str) -> bytes:
        return self.crc32c if algorithm == "crc32c" else self._hashes[algorithm].digest()
