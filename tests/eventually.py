"""Polling for a result that another process produces."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

Result = TypeVar("Result")

TIMEOUT = timedelta(seconds=40)

BUSY_TIMEOUT = timedelta(minutes=10)
"""For the work of a nice process: beside four busy processes it takes twenty times as long."""


def eventually(
    look: Callable[[], Result],
    *,
    until: Callable[[Result], bool],
    within: timedelta = TIMEOUT,
    every: timedelta = timedelta(seconds=0.05),
) -> Result:
    """Call `look` until its result satisfies `until`; return that result.

    Raises:
        AssertionError: no result satisfied `until` in time; the message names the last result.
    """
    looking = Retrying(
        retry=retry_if_result(lambda result: not until(result)),
        stop=stop_after_delay(within.total_seconds()),
        wait=wait_fixed(every.total_seconds()),
    )
    try:
        return looking(look)
    except RetryError as error:
        result = error.last_attempt.result()
        raise AssertionError(
            f"after {within} still: {getattr(result, '__dict__', result)}"
        ) from error
