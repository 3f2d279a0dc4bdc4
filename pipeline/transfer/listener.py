"""Who looks on while a file is sent."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pipeline.transfer.checkpoint import Checkpoint

HEARTBEAT: Final = timedelta(seconds=1)
"""A cancelled upload is noticed within so long, and its parts are gone in as long again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferListener:
    """Who is told how a transfer goes, and may stop it by raising.

    All calls come from the thread that called `send`. What they raise comes out
    of `send`; parts stay in the store for the next attempt, unless the error is
    a `DomainError` that is not retryable.
    """

    on_created: Callable[[str], None]
    """Takes the id of the multipart upload, which must be durable on return."""
    on_progress: Callable[[int, Checkpoint | None], None]
    """Takes the number of bytes that are stored so far, and what a later attempt goes on from.

    None, and whatever was kept of earlier attempts, means from the first byte.
    """
    heartbeat: Callable[[], None]
    """Called at least every `heartbeat_every`, and before anything is destroyed.

    Raises `LeaseLost` if another worker may have the upload now, and
    `TransferCancelled` if nobody wants it any more.
    """
    heartbeat_every: timedelta = HEARTBEAT
