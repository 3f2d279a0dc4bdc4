import pytest

from notifier.delivery import framing

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("last_read", "last_chunk"),
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="no body"),
        pytest.param(b"HTTP/1.1 204 No Content\n\n", b"", id="no body, bare newlines"),
        pytest.param(HEAD + b"OK", b"OK", id="head and body in one read"),
        pytest.param(b"OK", b"OK", id="body in its own read"),
        pytest.param(HEAD + b"\n\n", b"\n\n", id="body like the end of a head"),
    ],
)
def test_a_response_without_bytes_after_it_ends_exactly(
    last_read: bytes, last_chunk: bytes
) -> None:
    assert framing.ends_exactly(last_read, last_chunk=last_chunk, chunked=False)


@pytest.mark.parametrize(
    ("last_read", "last_chunk"),
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\nOK", b"", id="a 204 with a body"),
        pytest.param(b"HTTP/1.1 204 x\r\n\r\nHTTP/1.1 410 x\r\n\r\n", b"", id="a second response"),
        pytest.param(HEAD + b"OK\r\n", b"OK", id="more bytes than announced"),
        pytest.param(b"OK!", b"OK", id="more bytes in their own read"),
        pytest.param(HEAD + b"OK" + HEAD + b"OK", b"OK", id="the same response twice"),
        pytest.param(b"\n", b"", id="a split head"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_a_response_with_bytes_after_it_does_not_end_exactly(
    last_read: bytes, last_chunk: bytes
) -> None:
    assert not framing.ends_exactly(last_read, last_chunk=last_chunk, chunked=False)


def test_a_chunked_response_ends_with_its_last_chunk() -> None:
    whole = CHUNKED_HEAD + b"2\r\nOK\r\n0\r\n\r\n"
    assert framing.ends_exactly(whole, last_chunk=b"OK", chunked=True)
    assert framing.ends_exactly(b"0\r\n\r\n", last_chunk=b"OK", chunked=True)
    assert not framing.ends_exactly(whole + b"x", last_chunk=b"OK", chunked=True)
