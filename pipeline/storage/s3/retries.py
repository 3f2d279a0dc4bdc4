"""How often the store is asked again."""

from datetime import timedelta
from threading import Event
from typing import Final

import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_random_exponential,
)

from pipeline.storage.errors import RangeEndsEarly, StoreUnavailable

log = structlog.stdlib.get_logger(__name__)

FIRST_WAIT: Final = timedelta(milliseconds=500)
LONGEST_WAIT: Final = timedelta(seconds=15)


def store_retry(*, attempts: int, first_wait: timedelta, abandoned: Event) -> Retrying:
    """Return the one retry policy of the store: on `StoreUnavailable` only, until `abandoned`."""
    return Retrying(
        # Asked again, an object that is too short is as short as before.
        retry=retry_if_exception_type(StoreUnavailable)
        & retry_if_not_exception_type(RangeEndsEarly),
        stop=stop_after_attempt(attempts) | stop_when_event_set(abandoned),
        # Full jitter: workers that met the same outage must not come back together.
        wait=wait_random_exponential(
            multiplier=first_wait.total_seconds(), max=LONGEST_WAIT.total_seconds()
        ),
        sleep=sleep_using_event(abandoned),
        before_sleep=_log_retry,
        reraise=True,
    )


def _log_retry(state: RetryCallState) -> None:
    failure = state.outcome.exception() if state.outcome else None
    log.warning("store.retrying", attempt=state.attempt_number, reason=str(failure))
