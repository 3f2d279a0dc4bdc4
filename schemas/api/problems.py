"""The form of every error response.

Source: RFC 9457, problem details for HTTP APIs.
"""

import msgspec

from schemas.errors import ErrorCode


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`application/problem+json`. Programs branch on `code`; `detail` is for people.

    Attributes:
        code: stable code, listed in the API description.
        request_id: the id of the request in the server's log, also in `X-Request-ID`.
        errors: the invalid fields of a request, with the reasons.
    """

    type: str
    title: str
    status: int
    code: ErrorCode
    detail: str
    instance: str | None = None
    request_id: str | None = None
    errors: list[dict[str, str]] | None = None
