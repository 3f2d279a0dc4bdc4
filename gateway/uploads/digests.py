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
from typing import Final, Protocol

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


class _Running(Protocol):
    def update(self, block: memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32c:
    """`hashlib`'s way of speaking to a checksum."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, block: memoryview, /) -> None:
        # The library takes nothing that could be written to meanwhile.
        self._value = google_crc32c.extend(self._value, bytes(block))

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class Digester:
    """Digests a body as it comes, and says at the end what of the expected was not so."""

    def __init__(self, expected: Iterable[Expected]) -> None:
        self._expected = tuple(expected)
        wanted = {"sha-256", *(one.algorithm for one in self._expected)}
        self._hashes = {name: _running(name) for name in sorted(wanted)}

    def update(self, block: memoryview) -> None:
        for running in self._hashes.values():
            running.update(block)

    @property
    def sha256(self) -> bytes:
        return self._hashes["sha-256"].digest()

    def mismatch(self) -> Expected | None:
        """Return the first expected digest the body does not have."""
        for one in self._expected:
            if self._hashes[one.algorithm].digest() != one.digest:
                return one
        return None


def _running(algorithm: str) -> _Running:
    if algorithm == "crc32c":
        return _Crc32c()
    return hashlib.new(algorithm.replace("-", ""))
