import pytest
from litestar.datastructures import Headers

from gateway.http import declarations
from gateway.http.problems import InvalidRequest


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "identity"}])
def test_a_plain_body_is_accepted(headers: dict[str, str]) -> None:
    declarations.check_plain(Headers(headers))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("Content-Encoding", "gzip", "encoded bodies are not supported"),
        ("Transfer-Encoding", "gzip, chunked", "encodings other than chunked are not supported"),
        ("Content-Range", "bytes 0-6/14", "parts of a body are not supported"),
    ],
)
def test_a_refusal_says_what_is_not_supported(field: str, value: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refused:
        declarations.check_plain(Headers({field: value}))

    assert refused.value.field == field
