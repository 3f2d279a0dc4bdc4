"""The parts from the front of a file that are digested and stored, without a gap."""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from pipeline.storage.port import StoredPart
from pipeline.transfer.checkpoint import Checkpoint, CheckpointState, identity
from pipeline.transfer.checks import CheckState, FileCheck
from pipeline.transfer.plan import Part, PartPlan

MD5_IN_HEX: Final = re.compile(r"[0-9a-fA-F]{32}")


class ResumeState:
    """Grows as parts are digested, in order, and then stored, in any order.

    Ends for good before a part whose ETag is not its MD5: a successor, who does not
    read the part, could not tell it from one that was damaged on its way. Where the
    store encrypts, the ETag only tells whether it is still the same part.
    """

    def __init__(self, plan: PartPlan, *, version: str) -> None:
        self._source = identity(
            version=version, size_bytes=plan.size_bytes, part_size=plan.part_size
        )
        self._plan = plan
        self.parts = 0
        self._etags = hashlib.md5(usedforsecurity=False)
        self._md5s: dict[int, bytes] = {}
        self._states: dict[int, CheckState | None] = {}
        self._stored: dict[int, bytes] = {}
        self.checkpoint: Checkpoint | None = None

    @property
    def is_whole(self) -> bool:
        return self.parts == len(self._plan)

    def digested(self, part: Part, *, md5: bytes, state: CheckState | None) -> None:
        """Take the state of the check after a part; None where the check cannot go on from there."""
        self._md5s[part.number], self._states[part.number] = md5, state

    def stored(self, part: StoredPart) -> None:
        """Take a part that was digested before."""
        md5 = self._md5s.pop(part.number).hex()
        if part.etag.lower() == md5 or (
            not part.etag_is_digest and MD5_IN_HEX.fullmatch(part.etag)
        ):
            self._stored[part.number] = bytes.fromhex(part.etag)
            self._grow()

    def take_up(
        self, checkpoint: Checkpoint, *, stored: Mapping[int, StoredPart], check: FileCheck
    ) -> bool:
        """Have `check` go on behind the checkpoint of an earlier attempt.

        False, and nothing done, where anything is not as it was then: the source, the
        plan, or a part in the store.
        """
        behind = self._behind(checkpoint)
        parts = None if behind is None else self._plan.parts_in(behind.check.taken)
        if behind is None or parts is None:
            return False
        found = [stored.get(number) for number in range(1, parts + 1)]
        etags = [part.etag for part in found if part and MD5_IN_HEX.fullmatch(part.etag)]
        digest = hashlib.md5(bytes.fromhex("".join(etags)), usedforsecurity=False)
        if (
            len(etags) != parts
            or digest.digest() != behind.parts_md5
            or not check.go_on_from(behind.check)
        ):
            return False
        self.parts, self._etags, self.checkpoint = parts, digest, checkpoint
        return True

    def was_whole(self, checkpoint: Checkpoint, *, etag: str, check: FileCheck) -> bool:
        """Have `check` stand behind the last byte, where an object with this ETag is what an earlier attempt made.

        False, and nothing done, where it is not, or that attempt did not get so far.
        """
        behind = self._behind(checkpoint)
        if (
            behind is None
            or behind.check.taken != self._plan.size_bytes
            or etag.lower() != f"{behind.parts_md5.hex()}-{len(self._plan)}"
            or not check.go_on_from(behind.check)
        ):
            return False
        self.parts, self.checkpoint = len(self._plan), checkpoint
        return True

    def _behind(self, checkpoint: Checkpoint) -> CheckpointState | None:
        behind = CheckpointState.of(checkpoint)
        return behind if behind and behind.source == self._source else None

    def _grow(self) -> None:
        while (number := self.parts + 1) in self._stored:
            state = self._states.pop(number)
            self._etags.update(self._stored.pop(number))
            self.parts = number
            if state is not None:
                behind = CheckpointState(state, parts_md5=self._etags.digest(), source=self._source)
                self.checkpoint = behind.checkpoint()
