"""Answers that a client revalidates: an ETag, and 304 while it is current (RFC 9110, 13.1.2)."""

import hashlib
from http import HTTPStatus
from typing import Any, Final

from litestar import MediaType, Request, Response
from litestar.openapi.datastructures import ResponseSpec

from gateway.http.preconditions import ANY, Preconditions

NOT_MODIFIED: Final = {
    int(HTTPStatus.NOT_MODIFIED): ResponseSpec(
        data_container=None, description="the ETag of `If-None-Match` is current"
    )
}


def answer(
    request: Request[Any, Any, Any], body: bytes, *, cache_control: str = "private, no-cache"
) -> Response[Any]:
    """Return an answer of JSON with its ETag, or 304 if the client has the body.

    The ETag is a digest of the body: it also changes with a release that adds a field.

    Args:
        request: its `If-None-Match` names what the client has.
        body: JSON.
        cache_control: by default, the client may keep the body, and revalidates it before each use.

    Raises:
        InvalidRequest: a condition is malformed.
    """
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": cache_control}
    known = Preconditions.of(lambda field: request.headers.getall(field, [])).if_none_match
    if known is not None and known & {ANY, etag}:
        return Response(None, status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, media_type=MediaType.JSON, headers=headers)
