from pathlib import Path

from pipeline.ingest.extractors.pdf import pypdf_text
from pipeline.ingest.sandbox.fork import Send
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.settings import MIB
from tests.factories import pdfs
from tests.integration.sandbox.forked import forked


def test_the_memory_does_not_grow_with_the_number_of_pages(
    limits: ReadingLimits, tmp_path: Path
) -> None:
    def read(send: Send) -> None:
        with path.open("rb") as file:
            document = pypdf_text.Document(file, limits=limits)
            before = peak_memory()
            for number in range(1, document.page_count + 1):
                document.page(number)
            send(str(peak_memory() - before).encode())

    path = tmp_path / "long.pdf"
    path.write_bytes(pdfs.with_page_contents(*[b" " * MIB] * 200))
    with forked(read, memory_bytes=512 * MIB) as frames:
        assert int(next(frames)) < 100 * MIB


def peak_memory() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024
