"""Requests as bytes: correct ones, and the errors that clients and proxies make."""

import json
import re
import socket
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from hypothesis import strategies as st

from tests.integration.gateway.api import digest_field

CHUNK_SIZE = 16
PIECES = (b"sixteen bytes...", b"sixteen more....", b"the rest")
"""The chunks of each upload. Other bytes are another content or no valid chunk."""

DIGEST = re.compile(rb"(sha-256|sha-512)(=:[^:]+:)")

MALFORMED = (
    *("", ",", "=", "sha-256", "sha-256=", "sha-256=::", "sha-256=:A:", "sha-256=:AAAA:"),
    *("SHA-256=:AAAA:", "sha-256=abc", "md5=:AAAA:", "crc32c=:AAAA:", "crc32c=:AAAAAA==:"),
)


@dataclass(frozen=True, kw_only=True)
class Put:
    """One request for a chunk."""

    index: str
    body: bytes
    headers: tuple[bytes, ...]
    payload: bytes
    """The body in its framing."""
    is_complete: bool
    """Whether the framing shows the end of the body."""

    def excludes(self, content: bytes) -> bool:
        """Return whether a digest in the headers belongs to a known other content."""
        others = {
            digest_field(other, algorithm).encode()
            for other in {self.body, self.body + b"!"} - {content}
            for algorithm in ("sha-256", "sha-512")
        }
        return not others.isdisjoint(self._digests)

    @property
    def _digests(self) -> Collection[bytes]:
        """The digests in the headers. Of one algorithm in one field the last counts.

        Dictionaries work like this: RFC 8941, section 3.2.
        """
        last = {}
        for header in self.headers:
            name, _, value = header.partition(b": ")
            for algorithm, digest in DIGEST.findall(value):
                last[name, algorithm] = algorithm + digest
        return last.values()

    def addresses(self, index: int) -> bool:
        try:
            return int(unquote(self.index.rstrip("/"))) == index
        except ValueError:
            return False

    def encoded(self, upload_id: str, *, key: str) -> bytes:
        head = (
            f"PUT /api/v1/uploads/{upload_id}/chunks/{self.index} HTTP/1.1".encode("latin-1"),
            b"Host: gateway",
            f"Authorization: Bearer {key}".encode(),
            *self.headers,
        )
        return b"\r\n".join((*head, b"", b"")) + self.payload


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  # JSON of any kind
        return json.loads(self.body)


indexes = st.one_of(
    st.sampled_from(["0", "1", "2"]),
    st.integers().map(str),
    st.sampled_from(["00", "1.0", "1e0", "0x0", "-0", "+1", "%31", "1%00", "2/", "%D9%A3"]),
)

bodies = st.one_of(
    st.sampled_from(PIECES),
    st.sampled_from(PIECES).map(lambda piece: piece[::-1]),
    st.binary(max_size=CHUNK_SIZE + 4),
    st.binary(min_size=CHUNK_SIZE, max_size=CHUNK_SIZE),
)

_field_values = st.text(
    st.characters(codec="latin-1", exclude_characters="\r\n\0", exclude_categories=["Cc"]),
    max_size=60,
)


@st.composite
def digests(draw: st.DrawFn, body: bytes) -> str:
    """Return the value of a digest field: of this body, of another body, or malformed."""
    value: str = draw(
        st.one_of(
            st.just(digest_field(body)),
            st.just(digest_field(body, "sha-512")),
            st.just(digest_field(body + b"!")),
            st.just(f"{digest_field(body)}, {digest_field(body, 'sha-512')}"),
            st.just(f"{digest_field(body)}, {digest_field(body + b'!', 'sha-512')}"),
            st.just(f"unknown=:AAAA:, {digest_field(body)};parameter=1"),
            st.sampled_from(MALFORMED),
            _field_values,
        )
    )
    return value


_other_headers = st.sampled_from(
    [
        b"Content-Type: application/octet-stream",
        b"Content-Type: text/plain; charset=klingon",
        b"Content-Type: application/x-www-form-urlencoded",
        b"Content-Type: multipart/form-data",
        b"Content-Encoding: identity",
        b"Content-Encoding: gzip",
        b"Content-Range: bytes 0-15/40",
        b"Expect: 100-continue",
        b"Expect: a miracle",
        b"Idempotency-Key: k",
        b"Idempotency-Key: " + b"k" * 500,
        b"If-None-Match: *",
        b"Prefer: wait=banana",
        b"traceparent: 00-zz-zz-00",
        b"Connection: close",
        b"Upgrade: websocket",
        b"X-Latin: \xe4\xff",
        b"Cookie: a=\xff; b",
    ]
)


@st.composite
def framings(draw: st.DrawFn, body: bytes) -> tuple[tuple[bytes, ...], bytes, bool]:
    """Frame a body correctly or wrongly; return headers, payload and `Put.is_complete`."""
    length = len(body)
    sized = b"Content-Length: %d"
    chunked = b"Transfer-Encoding: chunked"
    cut = draw(st.integers(0, length))
    pieces = [piece for piece in (body[:cut], body[cut:]) if piece]
    encoded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return draw(
        st.sampled_from(
            [
                ((sized % length,), body, True),
                ((sized % length,), body, True),
                ((chunked,), encoded, True),
                ((chunked,), encoded.replace(b"\r\n", b";ext=1\r\n", 1), True),
                ((sized % (length + 1 + cut),), body, False),
                ((sized % cut,), body, False),
                ((sized % length, sized % (length + 1)), body, False),
                ((sized % length, chunked), encoded, False),
                ((chunked,), encoded[: cut + 1], False),
                ((chunked,), b"zz\r\n" + body, False),
                ((b"Transfer-Encoding: gzip, chunked",), encoded, False),
                ((b"Content-Length: -1",), body, False),
                ((b"Content-Length: 9e9",), body, False),
                ((b"Content-Length: 99999999999999999999999",), body, False),
                ((), body, False),
            ]
        )
    )


@st.composite
def puts(draw: st.DrawFn) -> Put:
    index, body = draw(indexes), draw(bodies)
    framing, payload, is_complete = draw(framings(body))
    named = [
        f"{name}: {value}".encode("latin-1")
        for name in draw(st.lists(st.sampled_from(["Content-Digest", "Repr-Digest"]), max_size=2))
        for value in [draw(digests(body))]
    ]
    others = draw(st.lists(_other_headers, max_size=2))
    return Put(
        index=index,
        body=body,
        headers=(*framing, *named, *others),
        payload=payload,
        is_complete=is_complete,
    )


def converse(url: str, *, requests: Sequence[bytes], then_hang_up: bool) -> list[Answer]:
    """Send all requests at once on one connection; return the answers until the connection ends.

    Raises:
        TimeoutError: the server neither answers nor closes the connection.
    """
    address = urlsplit(url)
    answers: list[Answer] = []
    with closing(
        socket.create_connection((str(address.hostname), address.port or 80), timeout=20)
    ) as connection:
        stream = connection.makefile("rb")
        with closing(stream):
            try:
                connection.sendall(b"".join(requests))
                if then_hang_up:
                    connection.shutdown(socket.SHUT_WR)
                while len(answers) < len(requests) or then_hang_up:
                    answer = _read_answer(stream)
                    if answer is None:
                        break
                    if answer.status != 100:
                        answers.append(answer)
            except ConnectionError:
                pass  # the server closes the connection after a request that it cannot parse
    return answers


def _read_answer(stream: Any) -> Answer | None:  # noqa: ANN401  # a buffered socket has no public type
    start = stream.readline()
    if not start:
        return None
    headers: dict[str, str] = {}
    while line := stream.readline().rstrip(b"\r\n"):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", 0))
    return Answer(int(start.split()[1]), headers, stream.read(length))
