"""One sweep of a kind at a time, and none longer than it may take."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from time import monotonic
from typing import TypeVar

from sqlalchemy import Engine, text

Item = TypeVar("Item")


@contextmanager
def taken(engine: Engine, name: str) -> Iterator[bool]:
    """Say whether it is our turn, and keep others out until the block ends.

    The lock is one of the session, because no transaction may stay open while
    files and objects are removed. Its connection is closed afterwards and not
    given back: however the block ends, nothing stays locked.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()
        is_ours = connection.scalar(
            text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))"),
            {"name": f"waybill.{name}"},
        )
        yield bool(is_ours)


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
