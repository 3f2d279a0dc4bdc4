"""Waiting for what other processes bring about."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

if TYPE_CHECKING:
    from collections.abc import Callable

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
        msg = f"after {within} still: {getattr(seen, '__dict__', seen)}"
        raise AssertionError(msg) from error
