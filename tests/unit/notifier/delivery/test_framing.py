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
        pytest.param(b"OK", b"OK", id="body in a read of its own"),
        pytest.param(HEAD + b"\n\n", b"\n\n", id="a body like the end of a head"),
    ],
)
def test_an_answer_with_nothing_behind_it_ends_exactly(last_read: bytes, last_chunk: bytes) -> None:
    assert framing.ends_exactly(last_read, last_chunk=last_chunk, chunked=False)


@pytest.mark.parametrize(
    ("last_read", "last_chunk"),
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\nOK", b"", id="a 204 with a body"),
        pytest.param(b"HTTP/1.1 204 x\r\n\r\nHTTP/1.1 410 x\r\n\r\n", b"", id="a second answer"),
        pytest.param(HEAD + b"OK\r\n", b"OK", id="more than was announced"),
        pytest.param(b"OK!", b"OK", id="more, in a read of its own"),
        pytest.param(HEAD + b"OK" + HEAD + b"OK", b"OK", id="the same answer twice"),
        pytest.param(b"\n", b"", id="a head cut in two, to be safe"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_an_answer_with_something_behind_it_does_not(last_read: bytes, last_chunk: bytes) -> None:
    assert not framing.ends_exactly(last_read, last_chunk=last_chunk, chunked=False)


def test_a_chunked_answer_ends_with_its_last_chunk() -> None:
    whole = CHUNKED_HEAD + b"2\r\nOK\r\n0\r\n\r\n"
    assert framing.ends_exactly(whole, last_chunk=b"OK", chunked=True)
    assert framing.ends_exactly(b"0\r\n\r\n", last_chunk=b"OK", chunked=True)
    assert not framing.ends_exactly(whole + b"x", last_chunk=b"OK", chunked=True)
