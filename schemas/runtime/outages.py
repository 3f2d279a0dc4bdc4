"""Waiting for the end of an outage of a service that this process needs."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar

import structlog

log = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")

FIRST_PAUSE: Final = timedelta(milliseconds=100)
PAUSE_MAX: Final = timedelta(seconds=5)


async def outlast(
    work: Callable[[], Awaitable[Result]],
    *,
    event: str,
    is_outage: Callable[[BaseException], bool],
    doing: str,
) -> Result:
    """Await `work()`; repeat it, without limit, while it fails because of an outage.

    Args:
        work: makes a new attempt at each call.
        is_outage: returns whether an error is an outage; other errors are raised.
        event: name of the log event of each failed attempt.
        doing: description of the work, for the log.
    """
    # Not with tenacity: it stores the exception of a cancelled attempt in a reference cycle. The
    # socket of a connection that was being opened would stay open until the garbage collector
    # runs; meanwhile PostgreSQL waits for the login, and so does whoever drops the database.
    attempt = 0
    while True:
        attempt += 1
        try:
            return await work()
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning(event, doing=doing, tries=attempt, error=describe(error))
        jitter = random.uniform(0, 0.5)  # noqa: S311  # spreads the reconnects of many processes
        await asyncio.sleep(pause_after(attempt).total_seconds() + jitter)


def pause_after(attempt: int) -> timedelta:
    """Return the pause after the given number of failed attempts, without its jitter."""
    # The exponent is capped too: an outage of a day would make the power a number of many digits.
    doublings = min(attempt - 1, 10)
    return min(PAUSE_MAX, FIRST_PAUSE * (1 << doublings))


def describe(error: BaseException | None) -> str:
    """Return the first line of the driver's error.

    SQLAlchemy's own text would put the statement and its parameters into the log.
    """
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
