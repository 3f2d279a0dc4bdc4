"""A watch over a transfer that remembers what it was told, and raises where a test says so."""

import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from pipeline.transfer.resume import Checkpoint, PreviousAttempt
from pipeline.transfer.send import TransferListener

if TYPE_CHECKING:
    from collections.abc import Callable


def nothing(_: "Recorder") -> None:
    """Let it pass."""


@dataclass
class Recorder:
    """A watch that remembers, and raises where told."""

    created: list[str] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)
    checkpoint: Checkpoint | None = None
    beats: int = 0
    threads: set[str] = field(default_factory=set)
    then: "Callable[[Recorder], None]" = nothing

    @property
    def reported(self) -> PreviousAttempt:
        """Return what the next attempt is told."""
        return PreviousAttempt(self.created[-1], checkpoint=self.checkpoint)

    def watch(self, *, every: timedelta = timedelta(milliseconds=1)) -> TransferListener:
        return TransferListener(
            on_created=self._on_created,
            on_progress=self._on_progress,
            heartbeat=self._heartbeat,
            heartbeat_interval=every,
        )

    def _on_created(self, multipart_id: str) -> None:
        self.created.append(multipart_id)
        self._note()

    def _on_progress(self, bytes_done: int, checkpoint: Checkpoint | None) -> None:
        self.progress.append(bytes_done)
        self.checkpoint = checkpoint
        self._note()

    def _heartbeat(self) -> None:
        self.beats += 1
        self._note()

    def _note(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.then(self)
