"""What the head of a request declares about its body; no declaration is ignored."""

from typing import Final

from litestar.datastructures import Headers

from gateway.http import digests
from gateway.http.problems import InvalidRequest
from gateway.staging import ExpectedDigest

_DIGEST_FIELDS: Final = frozenset(
    field.lower() for field in (*digests.FIELDS, digests.CONTENT_MD5, digests.DIGEST)
)


def check_plain(headers: Headers) -> None:
    """Check that a body is sent whole, and as it is stored.

    Raises:
        InvalidRequest: the body is encoded, or is only a part.
    """
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise InvalidRequest(
            "encoded bodies are not supported; send the bytes without compression",
            field="Content-Encoding",
        )
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        # The server decodes only "chunked"; the bytes would be stored still encoded.
        raise InvalidRequest(
            "encodings other than chunked are not supported", field="Transfer-Encoding"
        )
    if "content-range" in headers:
        # RFC 9110, 14.5: if the field were ignored, a part would be stored as the whole.
        raise InvalidRequest(
            "parts of a body are not supported; to send a file in parts, create an upload"
            " (POST /uploads) and send each chunk as a whole body",
            field="Content-Range",
        )


def digests_of(headers: Headers) -> tuple[ExpectedDigest, ...]:
    """Return every digest that a request declares for its body.

    Raises:
        DigestInvalid, DigestUnsupported: a digest cannot be checked.
        InvalidRequest: a digest follows the body; the server drops trailers.
    """
    trailers = {name.strip().lower() for name in headers.get("trailer", "").split(",")}
    if not trailers.isdisjoint(_DIGEST_FIELDS):
        raise InvalidRequest("digests are read before the body", field="Trailer")
    return digests.declared(lambda field: headers.getall(field, []))
