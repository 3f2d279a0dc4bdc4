"""Answers that a client revalidates: an ETag, and 304 while it is current (RFC 9110, 13.1.2)."""

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from litestar import MediaType, Request, Response
from litestar.openapi.datastructures import ResponseSpec

from gateway.http.preconditions import ANY, Preconditions

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

NOT_MODIFIED: Final = {
    int(HTTPStatus.NOT_MODIFIED): ResponseSpec(
        data_container=None, description="the ETag of `If-None-Match` is current"
    )
}


def answer(
    request: Request[Any, Any, Any],
    body: bytes,
    *,
    media_type: str = MediaType.JSON,
    cache_control: str = "private, no-cache",
    headers: Mapping[str, str] = NO_HEADERS,
) -> Response[Any]:
    """Return an answer with its ETag, or 304 if the client has the body.

    The ETag is a digest of the body: it also changes with a release that adds a field.

    Args:
        request: its `If-None-Match` names what the client has.
        body: of the media type.
        media_type: by default JSON.
        cache_control: by default, the client may keep the body, and revalidates it before each use.
        headers: further ones.

    Raises:
        InvalidRequest: a condition is malformed.
    """
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    with_tag = {**headers, "ETag": etag, "Cache-Control": cache_control}
    known = Preconditions.of(lambda field: request.headers.getall(field, [])).if_none_match
    if known is not None and known & {ANY, etag}:
        return Response(None, status_code=HTTPStatus.NOT_MODIFIED, headers=with_tag)
    return Response(body, media_type=media_type, headers=with_tag)
