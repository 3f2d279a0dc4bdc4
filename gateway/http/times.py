"""Times in the query of a request."""

from datetime import UTC, datetime
from typing import Annotated

from litestar.params import QueryParameter

from gateway.http.problems import InvalidRequest

# Text, because the framework also takes a number for a time.
Time = Annotated[
    str | None,
    QueryParameter(
        max_length=64,
        required=False,
        schema_extra={"format": "date-time"},
        description="ISO 8601, by default in UTC",
    ),
]


def time_of(text: str | None, *, field: str) -> datetime | None:
    """Return the time that a parameter names; without an offset it is in UTC.

    Raises:
        InvalidRequest: it is not a time.
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest("is not a time of ISO 8601", field=field) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
