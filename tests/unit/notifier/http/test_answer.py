"""The bytes of an answer, fed as a connection reads them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.http.answer import HEAD_MAX, INTERIM_MAX, OVERHEAD_MAX, Answer
from notifier.http.errors import AnswerRefused

BODY_MAX = 1024
READ = 8 * 1024


def read(data: bytes, *, piece: int = READ, is_tunnel: bool = False) -> Answer:
    """Feed the bytes in pieces, as `Connection` does, until the answer is complete."""
    answer = Answer(body_max=BODY_MAX, is_tunnel=is_tunnel)
    for start in range(0, len(data), piece):
        answer.feed(data[start : start + piece])
        if answer.complete:
            break
    return answer


def facts(answer: Answer) -> tuple[object, ...]:
    return (
        answer.status,
        bytes(answer.body),
        answer.retry_after,
        answer.complete,
        answer.truncated,
        answer.error,
    )


WHOLE = {
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "no reason": (b"HTTP/1.1 204\r\n\r\n", 204, b""),
    "an empty body": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
    "a body": (b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\nOK", 500, b"OK"),
    "a 304 with the length of another body": (
        b"HTTP/1.1 304 x\r\ncontent-length: 9\r\n\r\n",
        304,
        b"",
    ),
    "a body like the end of a head": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\r\n\r\n",
        200,
        b"\r\n\r\n",
    ),
    "chunks": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;a=b\r\nOK\r\n1\r\n!\r\n0\r\n\r\n",
        200,
        b"OK!",
    ),
    "HTTP/1.0 with keep-alive": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nOK",
        200,
        b"OK",
    ),
    "interim answers": (
        b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 103 x\r\nretry-after: 9\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
        204,
        b"",
    ),
    "an upgrade that is offered": (
        b"HTTP/1.1 200 OK\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nOK",
        200,
        b"OK",
    ),
    "bytes that are not ASCII": (
        b"HTTP/1.1 200 \xff\xfe\r\nx: \x80\xff\r\ncontent-length: 2\r\n\r\n\x00\xff",
        200,
        b"\x00\xff",
    ),
}


@pytest.mark.parametrize(("data", "status", "body"), WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("piece", [1, 2, 3, 7, READ])
def test_an_answer_is_read_whole_wherever_it_is_split(
    data: bytes, status: int, body: bytes, piece: int
) -> None:
    answer = read(data, piece=piece)
    assert facts(answer) == (status, body, [], True, False, None)
    assert answer.reusable or piece < 5  # a smaller piece does not show the end of chunks


@pytest.mark.parametrize(("data", "status", "body"), WHOLE.values(), ids=WHOLE)
def test_an_answer_is_read_whole_from_any_two_pieces(data: bytes, status: int, body: bytes) -> None:
    for end in range(1, len(data)):
        answer = Answer(body_max=BODY_MAX)
        answer.feed(data[:end])
        answer.feed(data[end:])
        assert facts(answer) == (status, body, [], True, False, None), end


def test_the_head_is_complete_before_the_body() -> None:
    answer = read(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart")
    assert (answer.head_complete, answer.complete) == (True, False)
    assert (answer.status, bytes(answer.body)) == (200, b"part")


NO_HTTP = {
    "line ends only": b"\r\n\r\n",
    "NUL": b"\x00" * 100,
    "another protocol": b"SSH-2.0-OpenSSH_9.7\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "ICE": b"ICE/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "HTTP/2 without a minor version": b"HTTP/2 200\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 99 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "a bare line feed": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "a bare line feed after a header": b"HTTP/1.1 200 OK\r\ncontent-length: 0\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nx: y\r\n z\r\ncontent-length: 0\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nx : y\r\n\r\n",
    "NUL in a header": b"HTTP/1.1 200 OK\r\nx: \x00\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nOK",
    "a list of lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nOK",
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "a signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nOK",
    "a length beyond 64 bits": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
    "a length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
    b"content-length: 2\r\n\r\n0\r\n\r\n",
    "another transfer coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
    "two transfer codings": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 x\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "an upgrade without its headers": b"HTTP/1.1 101 x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("data", NO_HTTP.values(), ids=NO_HTTP)
@pytest.mark.parametrize("piece", [1, READ])
def test_what_is_not_http_is_refused(data: bytes, piece: int) -> None:
    with pytest.raises(AnswerRefused):
        read(data, piece=piece)


EXTRA = {
    "a second answer": b"HTTP/1.1 204 x\r\n\r\nHTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n",
    "a 204 with a body": b"HTTP/1.1 204 x\r\ncontent-length: 2\r\n\r\nOK",
    "a line end": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK\r\n",
    "a line end after no body": b"HTTP/1.1 204 x\r\n\r\n\r\n",
    "the same answer twice": b"HTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\nOK" * 2,
    "an answer after chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nOK\r\n"
    b"0\r\n\r\nHTTP/1.1 410 x\r\n\r\n",
    "a line end after chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"2\r\nOK\r\n0\r\n\r\n\r\n",
    "part of an answer": b"HTTP/1.1 204 x\r\n\r\nHTTP",
    "bytes after close": b"HTTP/1.1 200 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\nx",
}


@pytest.mark.parametrize("data", EXTRA.values(), ids=EXTRA)
def test_bytes_after_an_answer_are_ignored_and_end_the_connection(data: bytes) -> None:
    answer = read(data)
    assert answer.status in {200, 204}
    assert bytes(answer.body) in {b"", b"OK"}
    assert (answer.complete, answer.error) == (True, None)
    assert not answer.reusable


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nconnection: close\r\n", b"HTTP/1.0 200 OK\r\n"],
    ids=["Connection: close", "HTTP/1.0"],
)
def test_a_connection_that_the_receiver_closes_is_not_reused(head: bytes) -> None:
    answer = read(head + b"content-length: 2\r\n\r\nOK")
    assert answer.complete
    assert not answer.reusable


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    answer = read(b"HTTP/1.1 500 x\r\n\r\nbecause")
    assert not answer.complete
    answer.end(is_clean=True)
    assert facts(answer) == (500, b"because", [], True, False, None)
    assert not answer.reusable


@pytest.mark.parametrize(
    ("data", "is_clean"),
    [
        (b"HTTP/1.1 500 x\r\n\r\nbecause", False),
        (b"HTTP/1.1 500 x\r\ncontent-length: 100\r\n\r\nbecause", True),
        (b"HTTP/1.1 500 x\r\ntransfer-encoding: chunked\r\n\r\n7\r\nbecause\r\n", True),
    ],
    ids=["reset", "fewer bytes than announced", "no last chunk"],
)
def test_a_body_that_breaks_off_is_an_error_beside_its_status(
    data: bytes, *, is_clean: bool
) -> None:
    answer = read(data)
    answer.end(is_clean=is_clean)
    assert (answer.status, bytes(answer.body)) == (500, b"because")
    assert answer.error == "the connection broke while reading the response"


def test_an_invalid_chunk_is_an_error_beside_the_status() -> None:
    answer = read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nOK\r\nzzz\r\n")
    assert (answer.status, bytes(answer.body), answer.complete) == (200, b"OK", True)
    assert "while reading the response" in (answer.error or "")
    assert not answer.reusable


# Bounds.


@pytest.mark.parametrize("piece", [25, 1000, READ])
def test_endless_interim_answers_are_refused(piece: int) -> None:
    flood = b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_MAX + 1)
    with pytest.raises(AnswerRefused, match="more than 10 interim answers"):
        read(flood, piece=piece)


def test_interim_answers_up_to_the_bound_are_read() -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\n" * INTERIM_MAX + b"HTTP/1.1 204 x\r\n\r\n"
    assert read(data).status == 204


def test_large_interim_answers_count_as_head() -> None:
    interim = b"HTTP/1.1 103 x\r\nlink: " + b"y" * (HEAD_MAX + READ) + b"\r\n\r\n"
    with pytest.raises(AnswerRefused, match="longer than 64 KiB"):
        read(interim + b"HTTP/1.1 204 x\r\n\r\n")


@pytest.mark.parametrize(
    "fields",
    [b"x: " + b"y" * 500_000, b"x: y\r\n" * 100_000, b"y" * 500_000],
    ids=["one long header", "many headers", "a long name"],
)
@pytest.mark.parametrize("status", [200, 429, 500])
def test_a_head_beyond_the_bound_leaves_its_status(fields: bytes, status: int) -> None:
    answer = read(b"HTTP/1.1 %d x\r\n%b\r\n\r\n" % (status, fields))
    assert (answer.status, answer.complete, answer.reusable) == (status, True, False)
    assert answer.error == "the head of the answer is longer than 64 KiB"


@pytest.mark.parametrize("data", [b"H" * HEAD_MAX * 2, b"HTTP/1.1 " + b" " * HEAD_MAX * 2])
def test_a_head_beyond_the_bound_without_a_status_is_refused(data: bytes) -> None:
    with pytest.raises(AnswerRefused):
        read(data)


def test_a_long_body_is_truncated() -> None:
    answer = read(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n" + b"z" * 100_000)
    assert facts(answer) == (200, b"z" * BODY_MAX, [], True, True, None)
    assert not answer.reusable


@pytest.mark.parametrize(
    "chunk",
    [b"1;" + b"a" * 1000 + b"\r\nz\r\n", b"1\r\nz\r\n", b"1;a=b;c=d\r\nz\r\n"],
    ids=["extensions", "tiny chunks", "small extensions"],
)
def test_endless_chunks_end_within_the_bound(chunk: bytes) -> None:
    answer = Answer(body_max=BODY_MAX)
    answer.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    fed = 0
    while not answer.complete:
        answer.feed(chunk)
        fed += len(chunk)
    assert fed <= HEAD_MAX + BODY_MAX + OVERHEAD_MAX + len(chunk)
    assert (answer.status, answer.reusable) == (200, False)


def test_endless_trailers_end_within_the_bound() -> None:
    answer = Answer(body_max=BODY_MAX)
    answer.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
    fed = 0
    while not answer.complete:
        answer.feed(b"retry-after: 1\r\n")
        fed += 16
    assert fed <= HEAD_MAX + BODY_MAX + OVERHEAD_MAX + 16
    assert answer.retry_after == []


# Headers.


def test_all_retry_after_lines_are_kept_up_to_a_bound() -> None:
    lines = b"".join(b"Retry-After: %d\r\n" % number for number in range(20))
    answer = read(b"HTTP/1.1 503 x\r\n" + lines + b"content-length: 0\r\n\r\n")
    assert answer.retry_after == [str(number) for number in range(10)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"timeout=5", 5),
        (b"timeout=5, max=100", 5),
        (b"max=100, timeout=5", 5),
        (b"max=100", None),
        (b"timeout=", None),
        (b"timeout=-5", None),
        (b"timeout=999999999999", None),
        (b"\xff", None),
    ],
)
def test_the_idle_time_of_the_server_is_read(value: bytes, expected: int | None) -> None:
    head = b"HTTP/1.1 200 OK\r\nkeep-alive: " + value + b"\r\ncontent-length: 0\r\n\r\n"
    assert read(head).keep_alive_timeout == expected


# The answer of a proxy.


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_a_tunnel_is_open_after_the_head(data: bytes) -> None:
    answer = read(data, is_tunnel=True)
    assert (answer.status, answer.complete, answer.reusable) == (200, True, True)


def test_a_tunnel_with_bytes_behind_the_head_is_not_used() -> None:
    answer = read(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 204 x\r\n\r\n", is_tunnel=True)
    assert not answer.reusable


# Any bytes.

heads = st.sampled_from(
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 500 \r\nx: ",
        b"HTTP/1.1 429 x\r\nretry-after: ",
        b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 ",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ]
)


@given(head=heads, rest=st.binary(max_size=300), data=st.data())
@example(head=b"HTTP/1.1 200 OK\r\n\r\n", rest=b"\x00\xff", data=None)
def test_any_bytes_give_the_same_facts_wherever_they_are_split(
    head: bytes, rest: bytes, data: st.DataObject | None
) -> None:
    whole = head + rest

    def end_of(pieces: list[bytes]) -> object:
        answer = Answer(body_max=BODY_MAX)
        try:
            for piece in pieces:
                if piece and not answer.complete:
                    answer.feed(piece)
        except AnswerRefused:
            assert not answer.head_complete
            return None
        answer.end(is_clean=True)
        assert len(answer.body) <= BODY_MAX
        assert not answer.head_complete or answer.status in range(200, 1000)
        return facts(answer)[:-1]

    cut = 1 if data is None else data.draw(st.integers(0, len(whole)))
    assert end_of([whole]) == end_of([whole[:cut], whole[cut:]])
