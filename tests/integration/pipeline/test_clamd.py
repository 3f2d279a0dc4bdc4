"""The client against Debian's clamd, and against other programs at its address."""

import io
import socket
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from threading import Event
from time import monotonic

import pytest

from pipeline.scan import clamd as client
from pipeline.scan.clamd import Address, Clamd
from pipeline.scan.errors import ScanFailed, ScannerAway
from pipeline.scan.verdict import ANSWER_MAX, Clean, Infected, NoVerdict, ScannedInPart, Verdict
from tests.fakes.scanners import (
    BLOCK,
    Server,
    answers,
    answers_after_the_stream,
    answers_without_an_end,
    closes,
    is_silent,
    listening,
    pong,
)
from tests.scanner import (
    EICAR,
    EICAR_SIGNATURE,
    MARKER,
    MARKER_SIGNATURE,
    STREAM_MAX,
    Scanner,
)


def blocks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), BLOCK):
        yield content[start : start + BLOCK]


def scan(
    address: Address, content: bytes, *, timeout: timedelta = timedelta(seconds=30)
) -> Verdict:
    return Clamd(address, timeout=timeout).scan(blocks(content), abandoned=Event())


def at(scanner: Scanner) -> Address:
    return ("127.0.0.1", scanner.port)


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (b"a harmless file", Clean()),
        (b"", Clean()),
        (bytes(STREAM_MAX), Clean()),
        (EICAR, Infected(signature=EICAR_SIGNATURE)),
        (b"before " + MARKER + b" after", Infected(signature=MARKER_SIGNATURE)),
        (bytes(900_000) + MARKER, Infected(signature=MARKER_SIGNATURE)),
    ],
    ids=["harmless", "empty", "largest", "eicar", "marker", "at-the-end"],
)
def test_clamd_tells_files_with_malware_from_others(
    scanner: Scanner, content: bytes, verdict: Verdict
) -> None:
    assert scan(at(scanner), content) == verdict


def test_a_file_inside_an_archive_is_scanned(scanner: Scanner) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("inner.com", EICAR)

    assert scan(at(scanner), archive.getvalue()) == Infected(signature=EICAR_SIGNATURE)


def test_a_unix_socket_reaches_clamd(scanner: Scanner) -> None:
    assert scan(scanner.socket, EICAR) == Infected(signature=EICAR_SIGNATURE)


@pytest.mark.parametrize("more", [1, 3 * STREAM_MAX])
def test_a_file_beyond_the_stream_limit_of_clamd_is_scanned_in_part(
    scanner: Scanner, more: int
) -> None:
    verdict = scan(at(scanner), bytes(STREAM_MAX + more))

    assert isinstance(verdict, ScannedInPart)
    assert "StreamMaxLength" in verdict.limit


def test_scans_go_on_while_clamd_loads_signatures(scanner: Scanner) -> None:
    name = b"another mark " + b"of malware"
    scanner.add_signature("Waybill.Test.Added", name)
    assert scan(at(scanner), name) == Clean()

    scanner.reload()
    verdict: Verdict = Clean()
    ends_at = monotonic() + 30
    while verdict == Clean() and monotonic() < ends_at:
        verdict = scan(at(scanner), name)

    assert verdict == Infected(signature="Waybill.Test.Added.UNOFFICIAL")


def test_a_scanner_that_is_not_there_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

    with pytest.raises(ScannerAway, match="cannot be reached"):
        scan(address, b"content")


@pytest.mark.parametrize(
    "server",
    [
        answers(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        answers(b"\x15\x03\x01\x00\x02\x02\x16"),
        closes,
        answers_without_an_end,
    ],
    ids=["http", "tls", "closes", "endless"],
)
def test_another_program_at_the_address_is_no_scanner(server: Server) -> None:
    with listening(server) as address, pytest.raises(ScannerAway):
        scan(address, b"content")


def test_a_scanner_that_does_not_answer_is_away(
    scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "GREETING_TIMEOUT", timedelta(seconds=0.3))

    with scanner.paused(), pytest.raises(ScannerAway, match="PING"):
        scan(at(scanner), b"content")

    assert scan(at(scanner), b"content") == Clean()


def test_a_verdict_that_is_not_one_of_clamd_is_not_taken_as_one() -> None:
    garbage = answers_after_the_stream(b"all is well, stream: OK\0")
    with listening(pong, garbage) as address, pytest.raises(ScannerAway):
        scan(address, b"content")


def test_a_scanner_that_dies_in_the_middle_gives_no_verdict() -> None:
    with listening(pong, closes) as address, pytest.raises(ScanFailed):
        scan(address, bytes(4 * STREAM_MAX))


@pytest.mark.parametrize("partial", [b"", b"stream: O", b"stream: OK"])
def test_an_answer_without_its_end_is_not_a_verdict(partial: bytes) -> None:
    with (
        listening(pong, answers_after_the_stream(partial)) as address,
        pytest.raises(ScanFailed),
    ):
        scan(address, b"content")


def test_an_answer_has_a_limit() -> None:
    endless = answers_after_the_stream(b"x" * 10 * ANSWER_MAX)
    with listening(pong, endless) as address, pytest.raises(ScannerAway):
        scan(address, b"content")


def test_an_error_of_clamd_is_no_verdict() -> None:
    error = answers_after_the_stream(b"stream: Can't allocate memory ERROR\0")
    with listening(pong, error) as address:
        assert isinstance(scan(address, b"content"), NoVerdict)


@pytest.mark.parametrize("size", [7, 16 * STREAM_MAX], ids=["no-verdict", "takes-no-byte"])
def test_a_scan_ends_when_nothing_happens(size: int) -> None:
    def stalls(connection: socket.socket) -> None:
        connection.recv(16)
        stopped.wait(30)

    stopped = Event()
    with listening(pong, stalls) as address:
        with pytest.raises(ScanFailed, match="nothing happened"):
            scan(address, bytes(size), timeout=timedelta(seconds=0.3))
        stopped.set()


def test_an_abandoned_scan_ends_at_once() -> None:
    abandoned = Event()

    def content() -> Iterator[bytes]:
        yield b"content"
        abandoned.set()

    with listening(pong, is_silent) as address, pytest.raises(ScanFailed, match="abandoned"):
        Clamd(address, timeout=timedelta(minutes=1)).scan(content(), abandoned=abandoned)
