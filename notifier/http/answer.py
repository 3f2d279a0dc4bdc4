"""The answer to one request, read from the bytes of a connection within bounds."""

from typing import Final

import httptools

from notifier.http.errors import AnswerRefused

HEAD_MAX: Final = 64 * 1024
"""Bytes before the body, interim answers included; twice what Node.js and nginx accept by default."""

INTERIM_MAX: Final = 10
"""Interim (1xx) answers; a server has a reason for one or two."""

OVERHEAD_MAX: Final = 16 * 1024
"""Bytes of the chunked coding (sizes, extensions, trailers) that are read beside a body."""

RETRY_AFTER_MAX: Final = 10
"""``Retry-After`` lines that are kept."""

_VERSIONS: Final = frozenset({"1.1", "1.0"})
_INTERIM: Final = range(100, 200)
_SUCCESS: Final = range(200, 300)
_FINAL: Final = range(200, 1000)


class Answer:
    """One answer; `feed` it until `head_complete`, then until `complete`.

    An interim answer is read and ignored. A broken body does not spoil an answer: after
    `head_complete`, `error` states what is wrong, and the answer is complete.

    Attributes:
        status: of the final answer, once its head is complete.
        body: the first bytes of the body, without the chunked coding, as sent.
        retry_after: the lines of ``Retry-After``.
        keep_alive_timeout: the seconds that the server keeps an idle connection, if it states them.
        error: what is wrong after the status line of a final answer.
        truncated: the body is longer than `body`.
        reusable: the connection may carry another request.
    """

    __slots__ = (
        "_body_bytes",
        "_body_max",
        "_closes",
        "_interim",
        "_is_tunnel",
        "_last_body",
        "_parser",
        "_read",
        "_reads_to_end",
        "body",
        "complete",
        "error",
        "head_complete",
        "keep_alive_timeout",
        "retry_after",
        "reusable",
        "status",
        "truncated",
    )

    def __init__(self, *, body_max: int, is_tunnel: bool = False) -> None:
        """Create an answer.

        Args:
            body_max: bytes of the body that are kept.
            is_tunnel: whether the request is a ``CONNECT``, whose 2xx answer has no body.
        """
        self._body_max = body_max
        self._is_tunnel = is_tunnel
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._read = 0
        self._interim = 0
        self._reads_to_end = True
        self._closes = False
        self._last_body = b""
        self._body_bytes = 0
        self.status: int | None = None
        self.body = bytearray()
        self.retry_after: list[str] = []
        self.keep_alive_timeout: int | None = None
        self.error: str | None = None
        self.head_complete = False
        self.complete = False
        self.truncated = False
        self.reusable = False

    @property
    def heard(self) -> bool:
        """Whether a byte has arrived."""
        return self._read > 0

    def feed(self, data: bytes) -> None:
        """Read the next bytes.

        Raises:
            AnswerRefused: the bytes are no final answer of HTTP/1.1, or exceed a bound of the head.
        """
        parser = self._parser
        if parser is None:
            return
        if not self._read and not data.startswith(b"H"):
            # llhttp accepts RTSP and ICE too.
            raise AnswerRefused("the answer is not HTTP")
        self._read += len(data)
        self._parse(parser, data)
        if self.complete:
            self.reusable = (
                self.error is None
                and not self._closes
                and (self._is_tunnel or self._ends_exactly(data))
            )
            self._finish()
        elif not self.head_complete:
            if self._read > HEAD_MAX:
                self.exceed(f"the head of the answer is longer than {HEAD_MAX // 1024} KiB")
        elif self.truncated or self._read > HEAD_MAX + self._body_max + OVERHEAD_MAX:
            self.truncated = True
            self._finish()

    def end(self, *, is_clean: bool) -> None:
        """Take the end of the connection as the end of a body; without effect before the body.

        Args:
            is_clean: whether the receiver closed the connection in order.
        """
        if self.complete or not self.head_complete:
            return
        if not (self._reads_to_end and is_clean):
            self.error = "the connection broke while reading the response"
        self._finish()

    def exceed(self, reason: str) -> None:
        """End the answer because it exceeds a bound; a status line that was read counts.

        A receiver that answered 2xx has accepted the request, and a repetition would be a
        duplicate.

        Raises:
            AnswerRefused: no status line of a final answer was read.
        """
        final = self._status_of_line()
        if final is None:
            self._finish()
            raise AnswerRefused(reason)
        self.error = reason
        self.status = final
        self.head_complete = True
        self._finish()

    # What llhttp calls.

    def on_message_begin(self) -> None:
        if self.complete:
            # The bytes of another answer follow. Without this one they would be read as the
            # answer to the next request.
            self._closes = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_complete:
            return  # a trailer
        length = len(name)
        if length == 14 and name.lower() == b"content-length":  # noqa: PLR2004  # its length; cheaper than lower()
            self._reads_to_end = False
        elif length == 17 and name.lower() == b"transfer-encoding":  # noqa: PLR2004
            if value.lower() != b"chunked":
                raise AnswerRefused("the answer has a transfer coding other than chunked")
            self._reads_to_end = False
        elif length == 11 and name.lower() == b"retry-after":  # noqa: PLR2004
            if len(self.retry_after) < RETRY_AFTER_MAX:
                self.retry_after.append(value.decode("latin-1"))
        elif length == 10 and name.lower() == b"keep-alive":  # noqa: PLR2004
            self.keep_alive_timeout = _timeout_of(value)

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self.complete or parser is None:
            return
        if parser.get_http_version() not in _VERSIONS:
            raise AnswerRefused("the answer is not HTTP/1.1")
        status = parser.get_status_code()
        if status in _INTERIM:
            self._interim += 1
            if self._interim > INTERIM_MAX:
                raise AnswerRefused(f"more than {INTERIM_MAX} interim answers")
            # The fields of an interim answer are not those of the final one.
            self.retry_after.clear()
            self.keep_alive_timeout = None
            self._reads_to_end = True
        elif status in _FINAL:
            self.status = status
            self.head_complete = True
            if self._is_tunnel and status in _SUCCESS:
                self.complete = True
        else:
            raise AnswerRefused(f"the answer has the status {status}")

    def on_body(self, data: bytes) -> None:
        if self.complete:
            raise AnswerRefused("bytes follow the answer")
        self._last_body = data
        self._body_bytes += len(data)
        room = self._body_max - len(self.body)
        self.body += data[:room]
        if len(data) > room:
            self.truncated = True

    def on_message_complete(self) -> None:
        if self.head_complete and not self.complete and self._parser is not None:
            self.complete = True
            self._closes = not self._parser.should_keep_alive()

    def _parse(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse("the receiver switches protocols")
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, AnswerRefused):
                raise
            self._refuse(str(error.__context__))
        except httptools.HttpParserError as error:
            self._refuse(f"the answer is not HTTP/1.1: {error}")

    def _status_of_line(self) -> int | None:
        """Return the status of the final answer whose head is being read."""
        status = 0 if self._parser is None else self._parser.get_status_code()
        return status if status in _FINAL else None

    def _refuse(self, reason: str) -> None:
        if self.complete:
            self._closes = True
        elif self.head_complete:
            self.error = f"{reason} while reading the response"
            self.complete = True
        else:
            self._finish()
            raise AnswerRefused(reason)

    def _finish(self) -> None:
        self.complete = True
        # The parser holds methods of this object: a cycle that only the garbage collector ends.
        self._parser = None

    def _ends_exactly(self, data: bytes) -> bool:
        """Return whether the answer ends with `data`; a wrong False only costs a connection.

        llhttp skips line ends after an answer and does not report where the answer ends.
        """
        if self._reads_to_end or not self._body_bytes:
            return data.endswith(b"\n") and not data.endswith(b"\n\r\n\r\n")
        return data.endswith((self._last_body, b"0\r\n\r\n"))


def _timeout_of(value: bytes) -> int | None:
    """Return the ``timeout`` of a ``Keep-Alive`` field, as most servers send it."""
    for part in value.split(b","):
        name, _, seconds = part.strip().partition(b"=")
        if name == b"timeout" and seconds.isdigit() and len(seconds) < 6:  # noqa: PLR2004  # a day
            return int(seconds)
    return None
