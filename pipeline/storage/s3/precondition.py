"""The condition `If-None-Match: *`, for stores that implement it."""

from collections.abc import Callable
from typing import Final, Literal, TypedDict, TypeVar

import structlog
from botocore import exceptions as botocore

from pipeline.storage.s3.refusals import is_unknown_call

log = structlog.stdlib.get_logger(__name__)

Answer = TypeVar("Answer")


class Condition(TypedDict, total=False):
    """Additional arguments of a conditional request."""

    IfNoneMatch: Literal["*"]


NO_CONDITION: Final[Condition] = {}
NOTHING_THERE: Final[Condition] = {"IfNoneMatch": "*"}


class Precondition:
    """Adds the condition to writes, so that no object is replaced, until the store refuses it."""

    def __init__(self) -> None:
        self._is_known = True

    def on(self, request: Callable[[Condition], Answer]) -> Answer:
        """Make a request with the condition, or without it if the store does not implement it."""
        if not self._is_known:
            return request(NO_CONDITION)
        try:
            return request(NOTHING_THERE)
        except botocore.ClientError as error:
            if not is_unknown_call(error):
                raise
        # If another part of the request is not implemented, this request is refused too.
        answer = request(NO_CONDITION)
        self._is_known = False
        log.info("store.writes_unconditionally")
        return answer
