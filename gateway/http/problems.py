"""Errors as HTTP answers: `application/problem+json` (RFC 9457).

The only module that maps error codes to statuses.
"""

import logging
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ExceptionHandlersMap
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.http import request_log
from schemas.api.problems import Problem
from schemas.errors import DomainError, ErrorCode
from schemas.runtime.lasting_problem import LastingProblem

log = structlog.stdlib.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
)
"""Headers of every answer: answers belong to one tenant, and some contain a secret."""

STATUS_BY_CODE: Final[Mapping[ErrorCode, HTTPStatus]] = MappingProxyType(
    {
        ErrorCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
        ErrorCode.SCOPE_MISSING: HTTPStatus.FORBIDDEN,
        ErrorCode.INVALID_REQUEST: HTTPStatus.BAD_REQUEST,
        ErrorCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
        ErrorCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
        ErrorCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
        ErrorCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.TOO_MANY_WAITS: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.BODY_TOO_SLOW: HTTPStatus.REQUEST_TIMEOUT,
        ErrorCode.TOO_MANY_BODIES: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.IDEMPOTENCY_KEY_REUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.BODY_DIGEST_MISMATCH: HTTPStatus.BAD_REQUEST,
        ErrorCode.PRECONDITION_FAILED: HTTPStatus.PRECONDITION_FAILED,
        ErrorCode.UPLOAD_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.UPLOAD_NOT_OPEN: HTTPStatus.CONFLICT,
        ErrorCode.UPLOAD_EXPIRED: HTTPStatus.GONE,
        ErrorCode.UPLOAD_INCOMPLETE: HTTPStatus.CONFLICT,
        ErrorCode.UPLOAD_ALREADY_SETTLED: HTTPStatus.CONFLICT,
        ErrorCode.FILE_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        ErrorCode.LENGTH_REQUIRED: HTTPStatus.LENGTH_REQUIRED,
        ErrorCode.QUOTA_EXCEEDED: HTTPStatus.FORBIDDEN,
        ErrorCode.TOO_MANY_OPEN_UPLOADS: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.STAGED_BYTES_EXCEEDED: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.TYPE_NOT_ALLOWED: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        ErrorCode.TOO_MANY_WAITING: HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.SYSTEM_BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
        ErrorCode.REFERENCE_REFUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.CHUNK_INDEX_OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
        ErrorCode.CHUNK_SIZE_MISMATCH: HTTPStatus.BAD_REQUEST,
        ErrorCode.CHUNK_DIGEST_MISMATCH: HTTPStatus.BAD_REQUEST,
        ErrorCode.CHUNK_CONFLICT: HTTPStatus.CONFLICT,
        ErrorCode.CHUNK_IN_PROGRESS: HTTPStatus.LOCKED,
        ErrorCode.DIGEST_INVALID: HTTPStatus.BAD_REQUEST,
        ErrorCode.MANIFEST_MISMATCH: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.FILE_DIGEST_MISMATCH: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.STAGING_FULL: HTTPStatus.INSUFFICIENT_STORAGE,
        ErrorCode.JOB_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.JOB_NOT_CANCELLABLE: HTTPStatus.CONFLICT,
        ErrorCode.JOB_NOT_RETRYABLE: HTTPStatus.CONFLICT,
        ErrorCode.JOB_SOURCE_GONE: HTTPStatus.CONFLICT,
        ErrorCode.JOB_BUSY: HTTPStatus.CONFLICT,
        ErrorCode.DOCUMENT_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.DOCUMENT_NOT_READY: HTTPStatus.CONFLICT,
        ErrorCode.DOCUMENT_BUSY: HTTPStatus.CONFLICT,
        # A file that is not served until, or because, it was scanned.
        ErrorCode.MALWARE_FOUND: HTTPStatus.CONFLICT,
        ErrorCode.SCAN_PENDING: HTTPStatus.CONFLICT,
        ErrorCode.DOCUMENT_UNSCANNABLE: HTTPStatus.CONFLICT,
        ErrorCode.WEBHOOK_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.WEBHOOK_URL_REFUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.EVENT_TYPE_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.TOO_MANY_WEBHOOKS: HTTPStatus.CONFLICT,
        ErrorCode.WEBHOOK_DISABLED: HTTPStatus.CONFLICT,
        ErrorCode.WEBHOOK_SECRET_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.WEBHOOK_SECRET_IN_USE: HTTPStatus.CONFLICT,
        ErrorCode.TOO_MANY_WEBHOOK_SECRETS: HTTPStatus.CONFLICT,
        ErrorCode.WEBHOOK_BUSY: HTTPStatus.CONFLICT,
        ErrorCode.DELIVERY_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.DELIVERY_EXHAUSTED: HTTPStatus.CONFLICT,
        ErrorCode.EVENT_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.EVENT_EXPIRED: HTTPStatus.GONE,
        ErrorCode.CURSOR_EXPIRED: HTTPStatus.GONE,
        ErrorCode.EXPORT_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.EXPORT_NOT_READY: HTTPStatus.CONFLICT,
        ErrorCode.EXPORT_EXPIRED: HTTPStatus.GONE,
        ErrorCode.SEARCH_QUERY_INVALID: HTTPStatus.BAD_REQUEST,
        ErrorCode.SEARCH_TIMEOUT: HTTPStatus.SERVICE_UNAVAILABLE,
        ErrorCode.BATCH_NOT_FOUND: HTTPStatus.NOT_FOUND,
        ErrorCode.BATCH_ENDED: HTTPStatus.CONFLICT,
        ErrorCode.BATCH_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        ErrorCode.TOO_MANY_BATCHES: HTTPStatus.TOO_MANY_REQUESTS,
        # The two codes below reject a line, not a request; clients find them in the report.
        ErrorCode.LINE_TOO_LONG: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        ErrorCode.LINE_REPEATED: HTTPStatus.CONFLICT,
        # A server error, because the server lost the bytes, although the client has to upload
        # again.
        ErrorCode.STAGING_MISSING: HTTPStatus.INTERNAL_SERVER_ERROR,
        # The codes below end a job, not a request; clients find them in the job's `error`.
        ErrorCode.STAGING_CORRUPT: HTTPStatus.INTERNAL_SERVER_ERROR,
        ErrorCode.STORE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
        ErrorCode.STORE_REJECTED: HTTPStatus.BAD_GATEWAY,
        ErrorCode.REFERENCE_MISSING: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.STORED_OBJECT_MISMATCH: HTTPStatus.BAD_GATEWAY,
        ErrorCode.ATTEMPTS_EXHAUSTED: HTTPStatus.INTERNAL_SERVER_ERROR,
        ErrorCode.CANCELLED: HTTPStatus.CONFLICT,
        ErrorCode.SCAN_FAILED: HTTPStatus.SERVICE_UNAVAILABLE,
        ErrorCode.EXPORT_TOO_LARGE: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.DOCUMENT_EMPTY: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.DOCUMENT_CORRUPT: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.DOCUMENT_ENCRYPTED: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.DOCUMENT_LIMIT: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.DOCUMENT_TIMEOUT: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.DOCUMENT_OUT_OF_MEMORY: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.DOCUMENT_CRASHED: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.DOCUMENT_QUARANTINED: HTTPStatus.UNPROCESSABLE_ENTITY,
        ErrorCode.DOCUMENT_DUPLICATE: HTTPStatus.UNPROCESSABLE_ENTITY,
    },
)

_HEADERS_BY_CODE: Final[Mapping[ErrorCode, Mapping[str, str]]] = MappingProxyType(
    {
        ErrorCode.UNAUTHENTICATED: {"WWW-Authenticate": 'Bearer realm="waybill"'},
        ErrorCode.SCOPE_MISSING: {
            "WWW-Authenticate": 'Bearer realm="waybill", error="insufficient_scope"'
        },
        ErrorCode.UNAVAILABLE: {"Retry-After": "2"},
        ErrorCode.STORE_UNAVAILABLE: {"Retry-After": "5"},
        ErrorCode.SCAN_PENDING: {"Retry-After": "5"},
        ErrorCode.CHUNK_IN_PROGRESS: {"Retry-After": "1"},
        ErrorCode.TOO_MANY_OPEN_UPLOADS: {"Retry-After": "5"},
        ErrorCode.STAGED_BYTES_EXCEEDED: {"Retry-After": "5"},
    },
)

_EVERYWHERE: Final = (
    ErrorCode.INVALID_REQUEST,
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.SCOPE_MISSING,
    ErrorCode.RATE_LIMITED,
    ErrorCode.UNAVAILABLE,
)

_WITHOUT_KEY: Final = (ErrorCode.INVALID_REQUEST, ErrorCode.UNAVAILABLE)

BODY_ERRORS: Final = (
    ErrorCode.BODY_TOO_SLOW,
    ErrorCode.TOO_MANY_BODIES,
    ErrorCode.SYSTEM_BUSY,
    ErrorCode.DIGEST_INVALID,
    ErrorCode.BODY_DIGEST_MISMATCH,
)
"""The errors of every route that reads a form or JSON."""

_CODE_BY_STATUS: Final[Mapping[int, ErrorCode]] = MappingProxyType(
    {
        HTTPStatus.UNAUTHORIZED: ErrorCode.UNAUTHENTICATED,
        HTTPStatus.NOT_FOUND: ErrorCode.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED: ErrorCode.METHOD_NOT_ALLOWED,
        HTTPStatus.SERVICE_UNAVAILABLE: ErrorCode.UNAVAILABLE,
    },
)


class InvalidRequest(DomainError):
    """The request is well formed, but a value in it is not valid."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, reason: str, *, field: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


class ReadingStopped(DomainError):
    """The body was not read to its end; the answer closes the connection.

    Otherwise the rest of the body would be read as the next request.
    """


class ClientDisconnected(DomainError):
    """The client closed the connection before the request was complete; the answer is only logged."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self) -> None:
        super().__init__("the connection was closed before the body was complete")


def answers(
    *codes: ErrorCode, has_json: bool = False, needs_key: bool = True
) -> dict[int, ResponseSpec]:
    """Return the problems that a route can answer, for the API description.

    The codes in `_EVERYWHERE` are added.

    Args:
        codes: the codes of the route.
        has_json: the route reads JSON, which may be too large.
        needs_key: the route needs an API key.
    """
    described: dict[int, list[str]] = {}
    everywhere = _EVERYWHERE if needs_key else _WITHOUT_KEY
    for code in dict.fromkeys((*everywhere, *codes)):
        described.setdefault(STATUS_BY_CODE[code], []).append(f"`{code}`")
    if has_json:
        too_large = described.setdefault(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, [])
        too_large.append(f"`{ErrorCode.INVALID_REQUEST}` (JSON)")
    return {
        status: ResponseSpec(
            data_container=Problem,
            media_type=MEDIA_TYPE,
            generate_examples=False,
            description=", ".join(names),
        )
        for status, names in sorted(described.items())
    }


def _answer(
    request: Request[Any, Any, Any],
    *,
    code: ErrorCode,
    detail: str,
    status: int | None = None,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response[Problem]:
    status = status or STATUS_BY_CODE[code]
    request_log.bind(code=code)
    return Response(
        Problem(
            type=f"urn:waybill:problem:{code}",
            title=code.replace("_", " ").capitalize(),
            status=status,
            code=code,
            detail=detail,
            instance=request.url.path,
            request_id=request_log.request_id(),
            errors=errors,
        ),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={**HEADERS, **_HEADERS_BY_CODE.get(code, {}), **(headers or {})},
    )


_refusals: Final = defaultdict[ErrorCode, LastingProblem](
    lambda: LastingProblem(ends_after=timedelta(minutes=1))
)
"""Answers of status 5xx by their code: a store that restarts needs nobody."""


def _domain_error(request: Request[Any, Any, Any], error: DomainError) -> Response[Problem]:
    status = STATUS_BY_CODE[error.code]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.retry_after is None:
        level = logging.ERROR if _refusals[error.code].met() else logging.WARNING
        log.log(level, "http.refused", code=error.code, detail=str(error))
    fields = (
        [{"field": error.field, "message": error.reason}]
        if isinstance(error, InvalidRequest)
        else None
    )
    return _answer(
        request,
        code=error.code,
        detail=str(error),
        errors=fields,
        headers=_headers_of(error),
    )


def _headers_of(error: DomainError) -> Mapping[str, str]:
    headers = {"Connection": "close"} if isinstance(error, ReadingStopped) else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after.total_seconds())))
    return headers


def answer_of(error: DomainError, *, request: Request[Any, Any, Any]) -> Response[Problem]:
    """Return the answer to a request that is refused before the application handles it."""
    return _domain_error(request, error)


def _http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Answer a refusal of the framework: unknown route or method, invalid or too large body."""
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unexpected(request, error)
    extra = error.extra if isinstance(error.extra, list) else []
    return _answer(
        request,
        code=_CODE_BY_STATUS.get(error.status_code, ErrorCode.INVALID_REQUEST),
        status=error.status_code,
        detail=_without_url(error.detail),
        errors=[
            {"field": _field_of(one, request=request), "message": str(one.get("message", ""))}
            for one in extra
            if isinstance(one, dict)
        ]
        or None,
        headers=error.headers,
    )


def _field_of(error: Mapping[str, Any], *, request: Request[Any, Any, Any]) -> str:
    """Return the name by which the client sent what is invalid.

    The framework names the argument of the handler, which may have another name than the parameter.
    """
    key = str(error.get("key", ""))
    if error.get("source") == "body":
        return key
    argument = request.route_handler.parsed_fn_signature.parameters.get(key)
    return getattr(argument and argument.kwarg_definition, "name", None) or key


def _without_url(detail: str) -> str:
    """Remove the URL from the framework's message: its query may hold a secret."""
    return re.sub(r"^(Validation failed) for .*", r"\1", detail)


def _database_unavailable(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    log.warning("http.database_unavailable", error=_class_of(error))
    return _answer(
        request, code=ErrorCode.UNAVAILABLE, detail="the database is not reachable; try again"
    )


def _database_error(request: Request[Any, Any, Any], error: DBAPIError) -> Response[Problem]:
    if error.connection_invalidated:
        return _database_unavailable(request, error)
    return _unexpected(request, error)


def _class_of(error: Exception) -> str:
    """Return the class of the driver's error; its text may hold values from the request."""
    return type(getattr(error, "orig", None) or error).__name__


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    log.error("http.failed", exc_info=error)
    return _answer(
        request, code=ErrorCode.INTERNAL, detail="the server failed; the error is logged"
    )


EXCEPTION_HANDLERS: Final[ExceptionHandlersMap] = {
    DomainError: _domain_error,
    HTTPException: _http_error,
    OperationalError: _database_unavailable,
    PoolTimeout: _database_unavailable,
    DBAPIError: _database_error,
    Exception: _unexpected,
}
