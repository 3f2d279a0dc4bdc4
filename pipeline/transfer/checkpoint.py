"""What a worker leaves to its successor, so that bytes already stored are not read again."""

import hashlib
import struct
from dataclasses import dataclass
from typing import Final, Self

from pipeline.transfer.checks import CheckState

# Mark of the form, bytes taken, crc32c of a chunk begun, MD5 of the ETags of the parts,
# what was read, state of the SHA-256. A checksum of all of it follows.
_FORM: Final = struct.Struct("!4sQI16s32s112s")
_MARK: Final = b"wbd1"
_CHECKSUM: Final = 16


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Bytes from the front that are digested and stored, and how to go on after them.

    `state` means something only to `CheckpointState.of`, on machines like the one that wrote it.
    """

    digested_bytes: int
    state: bytes


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """What lies behind a checkpoint."""

    check: CheckState
    parts_md5: bytes
    """MD5 of the ETags of its parts, as it makes up an object's ETag."""
    source: bytes
    """`identity` of what was read, and of how it was cut."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self | None:
        """Read a checkpoint; None if this is not a whole one, or of another form."""
        form, checksum = checkpoint.state[: _FORM.size], checkpoint.state[_FORM.size :]
        if len(form) != _FORM.size or checksum != _checksum(form):
            return None
        mark, taken, crc32c, parts_md5, source, sha256 = _FORM.unpack(form)
        if (mark, taken) != (_MARK, checkpoint.digested_bytes):
            return None
        return cls(
            CheckState(taken=taken, sha256=sha256, crc32c=crc32c),
            parts_md5=parts_md5,
            source=source,
        )

    def checkpoint(self) -> Checkpoint:
        form = _FORM.pack(
            _MARK,
            self.check.taken,
            self.check.crc32c,
            self.parts_md5,
            self.source,
            self.check.sha256,
        )
        return Checkpoint(self.check.taken, state=form + _checksum(form))


def identity(*, version: str, size_bytes: int, part_size: int) -> bytes:
    """Return what differs where another source is read, or the same is cut another way."""
    return hashlib.sha256(f"{size_bytes} {part_size} {version}".encode()).digest()


def _checksum(form: bytes) -> bytes:
    return hashlib.sha256(form).digest()[:_CHECKSUM]
