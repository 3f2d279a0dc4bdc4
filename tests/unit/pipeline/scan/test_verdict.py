"""What clamd's answers mean."""

import pytest

from pipeline.scan.verdict import (
    SIGNATURE_MAX,
    Clean,
    Infected,
    NotClamd,
    NoVerdict,
    ScannedInPart,
    is_pong,
    verdict_of,
)


def test_ok_means_clean() -> None:
    assert verdict_of(b"stream: OK\0") == Clean()


@pytest.mark.parametrize(
    "signature", ["Eicar-Test-Signature", "Win.Test.EICAR_HDB-1", "A name (with) spaces FOUND"]
)
def test_found_has_the_name_of_the_signature(signature: str) -> None:
    assert verdict_of(f"stream: {signature} FOUND\0".encode()) == Infected(signature=signature)


def test_a_name_is_printable_and_short() -> None:
    answer = b"stream: a\x1b[31m\xff" + b"x" * 1000 + b" FOUND\0"

    verdict = verdict_of(answer)

    assert isinstance(verdict, Infected)
    assert verdict.signature.startswith("a?[31m?x")
    assert verdict.signature.isprintable()
    assert len(verdict.signature) == SIGNATURE_MAX


@pytest.mark.parametrize(
    "answer",
    [
        b"INSTREAM size limit exceeded. ERROR\0",
        b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0",
    ],
)
def test_a_limit_of_clamd_is_a_scan_in_part(answer: bytes) -> None:
    assert isinstance(verdict_of(answer), ScannedInPart)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"stream: Can't allocate memory ERROR\0", "stream: Can't allocate memory"),
        (b"COMMAND READ TIMED OUT ERROR\0", "COMMAND READ TIMED OUT"),
    ],
)
def test_an_error_of_clamd_is_no_verdict(answer: bytes, reason: str) -> None:
    assert verdict_of(answer) == NoVerdict(reason=reason)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"stream: OK",
        b"OK\0",
        b"PONG\0",
        b"file: OK\0",
        b"stream: OK\0stream: OK\0",
        b"stream: OK and more\0",
        b"\xff\xfe\0\0",
    ],
)
def test_other_answers_are_not_those_of_clamd(answer: bytes) -> None:
    with pytest.raises(NotClamd):
        verdict_of(answer)


def test_only_pong_answers_ping() -> None:
    assert is_pong(b"PONG\0")
    assert not is_pong(b"HTTP/1.1 200 PONG\0")
    assert not is_pong(b"")
