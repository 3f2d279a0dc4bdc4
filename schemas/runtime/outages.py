"""Waiting for the end of an outage of a service that this process needs."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

log = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")


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

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            event,
            doing=doing,
            tries=state.attempt_number,
            error=describe(error),
        )

    async for attempt in AsyncRetrying(
        retry=retry_if_exception(is_outage),
        wait=wait_exponential_jitter(multiplier=0.1, max=5, jitter=0.5),
        before_sleep=report,
    ):
        with attempt:
            return await work()
    raise RuntimeError("a retry policy without a limit ended")


def describe(error: BaseException | None) -> str:
    """Return the first line of the driver's error.

    SQLAlchemy's own text would put the statement and its parameters into the log.
    """
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
