"""Digests that can be put away in the middle of a file and taken up by another process.

No library in good keeping offers that for SHA-256, and `hashlib` keeps its state to
itself. The libcrypto under `hashlib` has functions that keep theirs in memory of the
caller: a `SHA256_CTX`, the same in every OpenSSL since 0.9.8 (sha.h). They are the
same code at the same speed.
"""

import _hashlib
import ctypes
import hashlib
import struct
import sys
from functools import cache
from typing import Final, Protocol

import google_crc32c
import structlog

log = structlog.stdlib.get_logger(__name__)

# SHA256_CTX: eight words of the digest, the length in bits as two words with the lower
# one first, a block of 64 bytes, how much of it is taken, and the length of the digest.
_CONTEXT: Final = struct.Struct("=32s2I64s2I")
_WORD: Final = 2**32
_BLOCK: Final = 64
_DIGEST: Final = 32
_SAMPLE: Final = bytes(range(256))


class Crc32c:
    """The checksum of RFC 9260, appendix A; four bytes, the highest first."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def update(self, block: bytes, /) -> None:
        self.value = google_crc32c.extend(self.value, block)

    def digest(self) -> bytes:
        return self.value.to_bytes(4, "big")


class Sha256(Protocol):
    """A SHA-256 under way."""

    def update(self, block: bytes, /) -> None: ...

    def hexdigest(self) -> str:
        """Return the digest of what was taken; it may go on afterwards."""

    def state(self) -> bytes | None:
        """Return what `sha256_from` goes on from, or None where that cannot be had."""


def sha256() -> Sha256:
    library = _library()
    return _OfHashlib() if library is None else _OfLibcrypto(library)


def sha256_from(state: bytes, *, taken: int) -> Sha256 | None:
    """Go on from a state after `taken` bytes; None if it is not one, or not of such a machine."""
    library = _library()
    if library is None or not _is_after(state, taken=taken):
        return None
    return _OfLibcrypto(library, state=state)


class _OfHashlib:
    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, block: bytes, /) -> None:
        self._digest.update(block)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def state(self) -> None:
        """There is none to be had."""


class _OfLibcrypto:
    def __init__(self, library: ctypes.CDLL, *, state: bytes | None = None) -> None:
        self._library = library
        self._context = ctypes.create_string_buffer(_CONTEXT.size)
        if state is None:
            library.SHA256_Init(self._context)
        else:
            self._context.raw = state

    def update(self, block: bytes, /) -> None:
        self._library.SHA256_Update(self._context, block, len(block))

    def hexdigest(self) -> str:
        digest = ctypes.create_string_buffer(_DIGEST)
        # Ending a digest spoils its context.
        ended = ctypes.create_string_buffer(self._context.raw, _CONTEXT.size)
        self._library.SHA256_Final(digest, ended)
        return digest.raw.hex()

    def state(self) -> bytes:
        return self._context.raw


def _is_after(state: bytes, *, taken: int) -> bool:
    """Whether this is a context, in this machine's order of bytes, after so many bytes."""
    if len(state) != _CONTEXT.size:
        return False
    _, low, high, _, pending, digest_size = _CONTEXT.unpack(state)
    return (high * _WORD + low, pending, digest_size) == (8 * taken, taken % _BLOCK, _DIGEST)


@cache
def _library() -> ctypes.CDLL | None:
    """Return libcrypto as `hashlib` has it, unless it is not what this module takes it for."""
    try:
        library = ctypes.CDLL(_hashlib.__file__)
        library.SHA256_Init.argtypes = [ctypes.c_void_p]
        library.SHA256_Update.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        library.SHA256_Final.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        if _goes_on(library):
            return library
        reason = "it does not go on from its own state"
    except (AttributeError, OSError) as error:  # built into the interpreter, or without the names
        reason = str(error)
    log.info("transfer.digest_not_resumable", reason=reason, byteorder=sys.byteorder)
    return None


def _goes_on(library: ctypes.CDLL) -> bool:
    """Whether a digest put away within a block and taken up again comes out right."""
    cut = _BLOCK + 1
    first = _OfLibcrypto(library)
    first.update(_SAMPLE[:cut])
    state = first.state()
    first.update(_SAMPLE)
    second = _OfLibcrypto(library, state=state)
    second.update(_SAMPLE[cut:])
    return _is_after(state, taken=cut) and second.hexdigest() == hashlib.sha256(_SAMPLE).hexdigest()
