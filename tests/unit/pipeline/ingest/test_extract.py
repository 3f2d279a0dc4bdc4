from pathlib import Path

import pytest
from pypdf.errors import (
    DependencyError,
    EmptyFileError,
    FileNotDecryptedError,
    LimitReachedError,
    PdfReadError,
    PdfStreamError,
    WrongPasswordError,
)

from pipeline.ingest.extractors import pdf
from pipeline.ingest.extractors.pdf import EncryptionNotSupported, NoPages, PasswordNeeded
from pipeline.ingest.sandbox.fork import ChildLimits, Send, TimeLimitReached, forked
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.errors import ErrorCode
from tests.factories import pdfs

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EmptyFileError(), ErrorCode.PDF_EMPTY),
        (NoPages(), ErrorCode.PDF_EMPTY),
        (FileNotDecryptedError(), ErrorCode.PDF_ENCRYPTED),
        (WrongPasswordError(), ErrorCode.PDF_ENCRYPTED),
        (PasswordNeeded(), ErrorCode.PDF_ENCRYPTED),
        (EncryptionNotSupported(), ErrorCode.PDF_ENCRYPTED),
        (LimitReachedError(), ErrorCode.PDF_LIMIT_EXCEEDED),
        (RecursionError(), ErrorCode.PDF_LIMIT_EXCEEDED),
        (MemoryError(), ErrorCode.PDF_OUT_OF_MEMORY),
        (TimeLimitReached(), ErrorCode.PDF_TIMEOUT),
        (PdfReadError(), ErrorCode.PDF_CORRUPT),
        (PdfStreamError(), ErrorCode.PDF_CORRUPT),
        (DependencyError(), ErrorCode.PDF_CORRUPT),
        (NotImplementedError(), ErrorCode.PDF_CORRUPT),
        (AttributeError(), ErrorCode.PDF_CORRUPT),
        (KeyError(), ErrorCode.PDF_CORRUPT),
    ],
    ids=lambda value: value.value if isinstance(value, ErrorCode) else type(value).__name__,
)
def test_whatever_a_parser_raises_has_a_code(error: BaseException, code: ErrorCode) -> None:
    assert pdf.code_of(error) == code


def test_a_long_document_needs_no_more_memory_than_a_short_one(
    limits: ReadingLimits, tmp_path: Path
) -> None:
    def read(send: Send) -> None:
        with path.open("rb") as file:
            document = pdf.Document(file, limits=limits)
            before = peak_memory()
            for number in range(1, document.page_count + 1):
                document.page(number)
            send(str(peak_memory() - before).encode())

    path = tmp_path / "long.pdf"
    path.write_bytes(pdfs.with_page_contents(*[b" " * MIB] * 200))
    allowed = ChildLimits(
        wait=limits.timeout, memory_bytes=512 * MIB, frame_bytes=100, output_bytes=1_000
    )
    with forked(read, limits=allowed) as frames:
        assert int(next(frames)) < 100 * MIB


def peak_memory() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024


def test_a_reason_is_one_short_line_without_what_a_file_could_smuggle_in() -> None:
    error = PdfReadError("Invalid\x00 object\r\n" + "A" * 10_000)
    reason = pdf.reason_of(error)
    assert reason.startswith("PdfReadError: Invalid object AAA")
    assert len(reason) < 250
    assert reason.isprintable()


def test_an_error_without_words_is_named() -> None:
    assert pdf.reason_of(PdfReadError()) == "PdfReadError"
