"""The retry policy of the object store."""

from datetime import timedelta
from threading import Event
from typing import Final

from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_random_exponential,
)

from pipeline.storage.errors import RangeEndsEarly
from schemas.errors import StoreUnavailable
from schemas.runtime.s3 import log_retry

FIRST_WAIT: Final = timedelta(milliseconds=500)
WAIT_MAX: Final = timedelta(seconds=15)


def store_retry(*, attempts: int, first_wait: timedelta, abandoned: Event) -> Retrying:
    """Return a policy that retries on `StoreUnavailable`, until `abandoned` is set."""
    return Retrying(
        # An object that is too short stays too short.
        retry=retry_if_exception_type(StoreUnavailable)
        & retry_if_not_exception_type(RangeEndsEarly),
        stop=stop_after_attempt(attempts) | stop_when_event_set(abandoned),
        # Full jitter: workers that saw the same outage must not return at the same moment.
        wait=wait_random_exponential(
            multiplier=first_wait.total_seconds(), max=WAIT_MAX.total_seconds()
        ),
        sleep=sleep_using_event(abandoned),
        before_sleep=log_retry,
        reraise=True,
    )
