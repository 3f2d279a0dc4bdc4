"""Continues an earlier attempt from its checkpoint and the parts that the checkpoint covers."""

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from pipeline.storage.plan import Part, PartPlan
from pipeline.storage.port import StoredPart
from pipeline.transfer.checks import CheckState, FileCheck

MD5_IN_HEX: Final = re.compile(r"[0-9a-fA-F]{32}")

# Format mark, bytes taken, CRC32C of an unfinished chunk, MD5 of the parts' ETags,
# identity of the source, state of the SHA-256. A checksum of all fields follows.
_FORMAT: Final = struct.Struct("!4sQI16s32s112s")
_MARK: Final = b"wbd1"
_CHECKSUM_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The number of leading bytes that are digested and stored, and how to continue after them.

    `state` is opaque and bound to the platform that wrote it; see `CheckpointState`.
    """

    digested_bytes: int
    state: bytes


@dataclass(frozen=True, slots=True)
class PreviousAttempt:
    """What an earlier attempt recorded. The checkpoint belongs to the multipart upload."""

    multipart_id: str
    checkpoint: Checkpoint | None


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """The decoded state of a checkpoint."""

    check: CheckState
    parts_md5: bytes
    """MD5 of the parts' ETags, as in the ETag of a multipart object."""
    source: bytes
    """`source_identity` of the file and its plan."""

    @classmethod
    def decode(cls, checkpoint: Checkpoint) -> Self | None:
        """Decode a checkpoint; None if it is damaged or has another format."""
        fields, checksum = checkpoint.state[: _FORMAT.size], checkpoint.state[_FORMAT.size :]
        if len(fields) != _FORMAT.size or checksum != _checksum(fields):
            return None
        mark, taken, crc32c, parts_md5, source, sha256 = _FORMAT.unpack(fields)
        if (mark, taken) != (_MARK, checkpoint.digested_bytes):
            return None
        return cls(
            CheckState(taken=taken, sha256=sha256, crc32c=crc32c),
            parts_md5=parts_md5,
            source=source,
        )

    def encode(self) -> Checkpoint:
        fields = _FORMAT.pack(
            _MARK,
            self.check.taken,
            self.check.crc32c,
            self.parts_md5,
            self.source,
            self.check.sha256,
        )
        return Checkpoint(self.check.taken, state=fields + _checksum(fields))


def source_identity(plan: PartPlan, *, version: str) -> bytes:
    """Return a digest of the source's version, its size and its part size.

    A checkpoint of another identity is discarded: its parts have other bytes or other bounds.
    """
    return hashlib.sha256(f"{plan.size_bytes} {plan.part_size} {version}".encode()).digest()


class ResumeState:
    """The leading parts of a file that are digested and stored without a gap.

    Parts are digested in order and stored in any order. The state stops growing before
    a part whose ETag is not its MD5: the next attempt does not read the part, so it could
    not detect that the part was damaged in transit. If the store states that it encrypts, the ETag
    need not be the MD5: it then only identifies the stored part.
    """

    def __init__(self, plan: PartPlan, *, version: str) -> None:
        self._source = source_identity(plan, version=version)
        self._plan = plan
        self.parts = 0
        self._etags = hashlib.md5(usedforsecurity=False)
        self._md5s: dict[int, bytes] = {}
        self._states: dict[int, CheckState | None] = {}
        self._stored: dict[int, bytes] = {}
        self.checkpoint: Checkpoint | None = None

    @property
    def is_complete(self) -> bool:
        return self.parts == len(self._plan)

    def digested(self, part: Part, *, md5: bytes, state: CheckState | None) -> None:
        """Add a part that was read; `state` is the check's state after the part, if exportable."""
        self._md5s[part.number], self._states[part.number] = md5, state

    def stored(self, part: StoredPart) -> None:
        """Add a part that was digested before and is stored now."""
        md5 = self._md5s.pop(part.number).hex()
        if part.etag.lower() == md5 or (
            not part.etag_is_digest and MD5_IN_HEX.fullmatch(part.etag)
        ):
            self._stored[part.number] = bytes.fromhex(part.etag)
            self._grow()

    def resume(
        self, checkpoint: Checkpoint, *, stored: Mapping[int, StoredPart], check: FileCheck
    ) -> bool:
        """Continue `check` from the checkpoint of an earlier attempt.

        Returns False and changes nothing if the source, the plan or a stored part has changed.
        """
        earlier = self._decode(checkpoint)
        parts = None if earlier is None else self._plan.parts_in(earlier.check.taken)
        if earlier is None or parts is None:
            return False
        found = [stored.get(number) for number in range(1, parts + 1)]
        etags = [part.etag for part in found if part and MD5_IN_HEX.fullmatch(part.etag)]
        digest = hashlib.md5(bytes.fromhex("".join(etags)), usedforsecurity=False)
        if (
            len(etags) != parts
            or digest.digest() != earlier.parts_md5
            or not check.continue_from(earlier.check)
        ):
            return False
        self.parts, self._etags, self.checkpoint = parts, digest, checkpoint
        return True

    def resume_completed(self, checkpoint: Checkpoint, *, etag: str, check: FileCheck) -> bool:
        """Continue `check` after the last byte if an earlier attempt made the object with this ETag.

        Returns False and changes nothing if the object is another one, or if the
        checkpoint does not cover the whole file.
        """
        earlier = self._decode(checkpoint)
        if (
            earlier is None
            or earlier.check.taken != self._plan.size_bytes
            or etag.lower() != f"{earlier.parts_md5.hex()}-{len(self._plan)}"
            or not check.continue_from(earlier.check)
        ):
            return False
        self.parts, self.checkpoint = len(self._plan), checkpoint
        return True

    def _decode(self, checkpoint: Checkpoint) -> CheckpointState | None:
        decoded = CheckpointState.decode(checkpoint)
        return decoded if decoded and decoded.source == self._source else None

    def _grow(self) -> None:
        while (number := self.parts + 1) in self._stored:
            check = self._states.pop(number)
            self._etags.update(self._stored.pop(number))
            self.parts = number
            if check is not None:
                state = CheckpointState(check, parts_md5=self._etags.digest(), source=self._source)
                self.checkpoint = state.encode()


def _checksum(fields: bytes) -> bytes:
    return hashlib.sha256(fields).digest()[:_CHECKSUM_SIZE]
