from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.ingest.extractors.pdf.document import PdfExtractor
from pipeline.ingest.sandbox.fork import Send
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.settings import MIB, PdfEngine
from tests.factories import pdfs
from tests.integration.sandbox.forked import LIMITS, forked

MINUTES = timedelta(minutes=4)


@pytest.mark.parametrize("engine", [PdfEngine.AUTO, PdfEngine.PYPDF])
def test_the_memory_does_not_grow_with_the_number_of_pages(
    engine: PdfEngine, limits: ReadingLimits, tmp_path: Path
) -> None:
    def read(send: Send) -> None:
        chosen = replace(limits, pdf_engine=engine)
        with PdfExtractor().open(path, limits=chosen, password=None) as document:
            before = peak_memory()
            for number in range(1, document.page_count + 1):
                document.page(number)
            send(str(peak_memory() - before).encode())

    path = tmp_path / "long.pdf"
    # pypdf skips the bytes of an image at once.
    content = b"BI /W 1024 /H 1024 /BPC 8 /CS /G ID " + b" " * MIB + b"\nEI\n"
    path.write_bytes(pdfs.with_page_contents(*[content] * 120))
    patient = replace(LIMITS, idle=MINUTES, cpu=MINUTES, frame_cpu=MINUTES)
    with forked(read, limits=patient, memory_bytes=512 * MIB) as frames:
        assert int(next(frames)) < 80 * MIB


def peak_memory() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024
