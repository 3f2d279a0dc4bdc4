"""What a sweep of orphans found."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from schemas.errors import StoreFailed

log = structlog.stdlib.get_logger(__name__)


@dataclass
class SweepReport:
    """Counts that grow while a sweep goes through one area.

    Attributes:
        removed: orphans, which are gone now.
        failed: things that could not be looked at or removed.
        kept: things of ours that are in use, or too young to judge.
        unrecognized: names that are none of ours, and stay.
        example: one of them, for an operator to look for.
    """

    removed: int = 0
    failed: int = 0
    kept: int = 0
    unrecognized: int = 0
    example: str | None = None

    def remove(self, name: str, removal: Callable[[], object]) -> None:
        """Remove an orphan; one that cannot be removed keeps no other from it."""
        try:
            removal()
        except (OSError, StoreFailed) as error:
            self.add_failed(name, error)
        else:
            self.removed += 1
            log.debug("sweep.orphan_removed", name=name)

    def add_failed(self, name: str, error: Exception) -> None:
        self.failed += 1
        log.warning("sweep.orphan_stuck", name=name, reason=str(error))

    def add_unrecognized(self, name: str) -> None:
        self.unrecognized += 1
        self.example = self.example or name
