"""One sweep of a kind at a time, and none longer than it may take."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from time import monotonic
from typing import Final, TypeVar

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

TAKE: Final = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
GIVE_BACK: Final = text("SELECT pg_advisory_unlock(hashtextextended(:name, 0))")

Item = TypeVar("Item")


@contextmanager
def taken(engine: Engine, name: str) -> Iterator[bool]:
    """Say whether it is our turn, and keep others out until the block ends.

    The lock is one of the session, because no transaction may stay open while
    files and objects are removed. Its connection is closed afterwards and not
    given back: however the block ends, nothing stays locked.
    """
    lock = {"name": f"waybill.{name}"}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()
        is_ours = bool(connection.scalar(TAKE, lock))
        try:
            yield is_ours
        finally:
            if is_ours:
                # The end of the session would do it too, a moment after the connection is
                # closed; where the session has ended already, it has.
                with suppress(DBAPIError):
                    connection.execute(GIVE_BACK, lock)


@dataclass(frozen=True)
class Budget:
    """The time a sweep may take; what it does not get done is done by the next one."""

    ends_at: float

    @classmethod
    def of(cls, longest: timedelta) -> "Budget":
        return cls(monotonic() + longest.total_seconds())

    @property
    def is_spent(self) -> bool:
        return monotonic() >= self.ends_at

    def batches(self, items: Iterable[Item], *, of: int) -> Iterator[list[Item]]:
        """Yield the items, so many at once, until there are no more or the budget is spent."""
        remaining = iter(items)
        while not self.is_spent and (batch := list(islice(remaining, of))):
            yield batch
