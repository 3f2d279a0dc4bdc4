"""The shape of every error answer.

Source: RFC 9457, problem details for HTTP APIs.
"""

import msgspec

from schemas.errors import ErrorCode


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`application/problem+json`; branch on `code`, show `detail` to people.

    Attributes:
        code: stable name of the error, listed in the API description.
        errors: for an invalid request, what is wrong with which field.
    """

    type: str
    title: str
    status: int
    code: ErrorCode
    detail: str
    instance: str | None = None
    errors: list[dict[str, str]] | None = None
