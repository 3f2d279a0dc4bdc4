"""`If-None-Match: *`, for as long as the store knows it."""

from collections.abc import Callable
from typing import Final, Literal, TypedDict, TypeVar

import structlog
from botocore import exceptions as botocore

from pipeline.storage.s3.refusals import is_unknown_call

log = structlog.stdlib.get_logger(__name__)

Answer = TypeVar("Answer")


class Condition(TypedDict, total=False):
    """What a conditional request has beyond any other."""

    IfNoneMatch: Literal["*"]


NO_CONDITION: Final[Condition] = {}
NOTHING_THERE: Final[Condition] = {"IfNoneMatch": "*"}


class Precondition:
    """Asks that a write replaces nothing; remembers where the store does not do that."""

    def __init__(self) -> None:
        self._is_known = True

    def on(self, request: Callable[[Condition], Answer]) -> Answer:
        """Make a request with the condition, or without it where the store refuses to read it."""
        if not self._is_known:
            return request(NO_CONDITION)
        try:
            return request(NOTHING_THERE)
        except botocore.ClientError as error:
            if not is_unknown_call(error):
                raise
        # Where something else of the request is unknown, this one is refused as well.
        answer = request(NO_CONDITION)
        self._is_known = False
        log.info("store.writes_unconditionally")
        return answer
