"""The result of a sweep of orphans."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from schemas.errors import StoreFailed

log = structlog.stdlib.get_logger(__name__)


@dataclass
class SweepReport:
    """Counts that grow during the sweep of one area.

    Attributes:
        removed: orphans that were deleted.
        failed: files or objects that could not be examined or deleted.
        kept: files or objects of Waybill that are in use, or too young to judge.
        unrecognized: names that are not ours; never deleted.
        example: one unrecognized name, for an operator.
    """

    removed: int = 0
    failed: int = 0
    kept: int = 0
    unrecognized: int = 0
    example: str | None = None

    def remove(self, name: str, delete: Callable[[], object]) -> None:
        """Delete an orphan; a failure is counted and does not end the sweep."""
        try:
            delete()
        except (OSError, StoreFailed) as error:
            self.add_failed(name, error)
        else:
            self.removed += 1
            log.debug("sweep.orphan_removed", name=name)

    def add_failed(self, name: str, error: Exception) -> None:
        self.failed += 1
        log.warning("sweep.orphan_failed", name=name, reason=str(error))

    def add_unrecognized(self, name: str) -> None:
        self.unrecognized += 1
        self.example = self.example or name
