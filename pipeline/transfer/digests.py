"""Digests whose state can be saved in the middle of a file and continued by another process.

`hashlib` does not export the state of a SHA-256, and no maintained library does. The
libcrypto under `hashlib` keeps the state in memory of the caller: a `SHA256_CTX`, whose
layout is the same in every OpenSSL since 0.9.8 (sha.h). Code and speed are the same.
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

# SHA256_CTX: eight words of the digest, the length in bits as two words (low word first),
# a block of 64 bytes, the number of bytes in that block, and the length of the digest.
_CONTEXT: Final = struct.Struct("=32s2I64s2I")
_WORD: Final = 2**32
_BLOCK: Final = 64
_DIGEST: Final = 32
_SAMPLE: Final = bytes(range(256))


class Crc32c:
    """CRC32C (RFC 9260, appendix A) as four bytes, most significant byte first."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def update(self, block: bytes, /) -> None:
        self.value = google_crc32c.extend(self.value, block)

    def digest(self) -> bytes:
        return self.value.to_bytes(4, "big")


class Sha256(Protocol):
    """An unfinished SHA-256."""

    def update(self, block: bytes, /) -> None: ...

    def hexdigest(self) -> str:
        """Return the digest of the bytes so far; `update` may follow."""

    def state(self) -> bytes | None:
        """Return the state for `sha256_from`; None if the platform does not export the state."""


def sha256() -> Sha256:
    library = _library()
    return _OfHashlib() if library is None else _OfLibcrypto(library)


def sha256_from(state: bytes, *, taken: int) -> Sha256 | None:
    """Continue from a state after `taken` bytes; None if the state is invalid or from another platform."""
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
        """Return None: `hashlib` exports no state."""


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
        # SHA256_Final destroys the context that it is given.
        final = ctypes.create_string_buffer(self._context.raw, _CONTEXT.size)
        self._library.SHA256_Final(digest, final)
        return digest.raw.hex()

    def state(self) -> bytes:
        return self._context.raw


def _is_after(state: bytes, *, taken: int) -> bool:
    """Return whether `state` is a context of this platform's byte order after `taken` bytes."""
    if len(state) != _CONTEXT.size:
        return False
    _, low, high, _, pending, digest_size = _CONTEXT.unpack(state)
    return (high * _WORD + low, pending, digest_size) == (8 * taken, taken % _BLOCK, _DIGEST)


@cache
def _library() -> ctypes.CDLL | None:
    """Return the libcrypto of `hashlib`; None if its functions or its layout are not as expected."""
    try:
        library = ctypes.CDLL(_hashlib.__file__)
        library.SHA256_Init.argtypes = [ctypes.c_void_p]
        library.SHA256_Update.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        library.SHA256_Final.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        if _continues(library):
            return library
        reason = "it does not continue from its own state"
    except (
        AttributeError,
        OSError,
    ) as error:  # linked into the interpreter, or without the symbols
        reason = str(error)
    log.info("transfer.digest_not_resumable", reason=reason, byteorder=sys.byteorder)
    return None


def _continues(library: ctypes.CDLL) -> bool:
    """Return whether a digest that is saved inside a block and continued has the right result."""
    cut = _BLOCK + 1
    first = _OfLibcrypto(library)
    first.update(_SAMPLE[:cut])
    state = first.state()
    first.update(_SAMPLE)
    second = _OfLibcrypto(library, state=state)
    second.update(_SAMPLE[cut:])
    return _is_after(state, taken=cut) and second.hexdigest() == hashlib.sha256(_SAMPLE).hexdigest()
