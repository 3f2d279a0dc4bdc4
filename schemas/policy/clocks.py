"""How far two clocks differ, measured by one question and its answer."""

from datetime import datetime, timedelta


def ahead(*, asked: datetime, answer: datetime, answered: datetime) -> timedelta:
    """Return how far the clock that asks is ahead of the clock that answers, at least.

    The answer was given at some moment between the question and its arrival, so a slow round trip
    does not count as a difference.

    Args:
        asked: the time of the question, by the clock that asks.
        answer: the time in the answer.
        answered: the time of the answer's arrival, by the clock that asks.

    Returns:
        A negative difference if the clock that asks is behind; zero if the clocks may agree.
    """
    if answer < asked:
        return asked - answer
    if answer > answered:
        return answered - answer
    return timedelta(0)


def description(difference: timedelta) -> str:
    """Return a difference in words; `difference` is positive for a clock that is ahead."""
    amount = timedelta(seconds=round(abs(difference).total_seconds()))
    side = "ahead of" if difference > timedelta(0) else "behind"
    return f"the clock of this process is {amount} {side} the database's"
