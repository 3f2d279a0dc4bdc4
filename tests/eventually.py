"""Waiting for what other processes bring about."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

Seen = TypeVar("Seen")

SOON = timedelta(seconds=40)


def eventually(
    look: Callable[[], Seen],
    *,
    until: Callable[[Seen], bool],
    within: timedelta = SOON,
    every: timedelta = timedelta(seconds=0.05),
) -> Seen:
    """Look until what is seen is as expected.

    Raises:
        AssertionError: it was not in time; says what was seen last.
    """
    looking = Retrying(
        retry=retry_if_result(lambda seen: not until(seen)),
        stop=stop_after_delay(within.total_seconds()),
        wait=wait_fixed(every.total_seconds()),
    )
    try:
        return looking(look)
    except RetryError as error:
        seen = error.last_attempt.result()
        raise AssertionError(f"after {within} still: {getattr(seen, '__dict__', seen)}") from error
