"""Limits of a sweep: one at a time per kind, and a time budget."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from time import monotonic
from typing import Final, TypeVar

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

LOCK: Final = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
UNLOCK: Final = text("SELECT pg_advisory_unlock(hashtextextended(:name, 0))")

Item = TypeVar("Item")


@contextmanager
def advisory_lock(engine: Engine, name: str) -> Iterator[bool]:
    """Try to take an advisory lock for the length of the block; yield whether it was taken.

    The lock belongs to the database session, because no transaction may stay open while
    files and objects are deleted. The connection is closed and not returned to the pool:
    however the block ends, the lock is released.
    """
    lock = {"name": f"waybill.{name}"}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()
        is_taken = bool(connection.scalar(LOCK, lock))
        try:
            yield is_taken
        finally:
            if is_taken:
                # The end of the session releases the lock too, but only a moment after the
                # connection is closed. A session that has ended holds no lock.
                with suppress(DBAPIError):
                    connection.execute(UNLOCK, lock)


@dataclass(frozen=True)
class Budget:
    """The time that a sweep may take; the next sweep does the rest."""

    ends_at: float

    @classmethod
    def of(cls, max_time: timedelta) -> "Budget":
        return cls(monotonic() + max_time.total_seconds())

    @property
    def is_spent(self) -> bool:
        return monotonic() >= self.ends_at

    def batches(self, items: Iterable[Item], *, size: int) -> Iterator[list[Item]]:
        """Yield the items in batches of `size`, until the budget is spent."""
        remaining = iter(items)
        while not self.is_spent and (batch := list(islice(remaining, size))):
            yield batch
