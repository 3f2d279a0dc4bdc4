"""A listener that records its calls, and raises where a test demands it."""

import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from pipeline.transfer.resume import Checkpoint, PreviousAttempt
from pipeline.transfer.send import TransferListener

if TYPE_CHECKING:
    from collections.abc import Callable


def do_nothing(_: "Recorder") -> None:
    """Accept a call."""


@dataclass
class Recorder:
    """Records every call of a transfer; `on_call` is called after each and may raise."""

    created: list[str] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)
    checkpoint: Checkpoint | None = None
    heartbeats: int = 0
    threads: set[str] = field(default_factory=set)
    on_call: "Callable[[Recorder], None]" = do_nothing

    @property
    def attempt(self) -> PreviousAttempt:
        """Return the record that the next attempt would find."""
        return PreviousAttempt(self.created[-1], checkpoint=self.checkpoint)

    def listener(
        self, *, heartbeat_interval: timedelta = timedelta(milliseconds=1)
    ) -> TransferListener:
        return TransferListener(
            on_created=self._on_created,
            on_progress=self._on_progress,
            heartbeat=self._heartbeat,
            heartbeat_interval=heartbeat_interval,
        )

    def _on_created(self, multipart_id: str) -> None:
        self.created.append(multipart_id)
        self._called()

    def _on_progress(self, bytes_done: int, checkpoint: Checkpoint | None) -> None:
        self.progress.append(bytes_done)
        self.checkpoint = checkpoint
        self._called()

    def _heartbeat(self) -> None:
        self.heartbeats += 1
        self._called()

    def _called(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.on_call(self)
