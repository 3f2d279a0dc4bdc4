"""OCR of scanned pages: its cost beside a bare tesserocr loop, and the words that it finds."""

import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

import tesserocr

from dev.bench import machine
from dev.bench.figures import Ratio
from dev.bench.papers import SCAN_DPI, Scan, Words, write_scanned_pdf
from dev.bench.sections import Section, Table
from dev.bench.system import System
from dev.bench.usage import watched
from dev.client import Client
from dev.stack.checkout import TESSDATA

TIMEOUT: Final = timedelta(minutes=10)
SERVICES: Final = ("gateway", "relay", "transfer", "metadata", "ingest", "ocr")
TURNS: Final = {"upright": 0.0, "3° askew": 3.0, "turned by 90°": 90.0, "turned by 180°": 180.0}


def run(system: System, *, pages: int, rounds: int) -> Section:
    system.run_only(*SERVICES)
    words = Words(seed=3)
    ours: dict[str, list[float]] = {name: [] for name in TURNS}
    theirs: dict[str, list[float]] = {name: [] for name in TURNS}
    recalls: dict[str, list[float]] = {name: [] for name in TURNS}
    _warm_up(system, words)
    for _ in range(rounds):
        for name, degrees in TURNS.items():
            scans = [Scan(words, turn_degrees=degrees) for _ in range(pages)]
            seconds, texts = _recognize(system, scans)
            ours[name].append(pages / seconds)
            recalls[name] += [
                recall(scan.text, text) for scan, text in zip(scans, texts, strict=True)
            ]
            # The peer cannot turn pages: it gets the same kind of page upright.
            upright = [Scan(words, turn_degrees=0.0) for _ in range(pages)]
            theirs[name].append(pages / _by_tesserocr(upright))
            system.report(f"recognition: {name}: {ours[name][-1]:.2f} pages/CPU s")
    system.empty_bucket()
    return Section(
        title="OCR",
        question=(
            f"Scanned pages of about 270 words, {SCAN_DPI} dpi, grey, with noise: rendered, turned"
            " upright and recognised by the worker, beside tesserocr alone on upright pictures of the"
            f" same kind in this process. {pages} pages, {rounds} rounds in turns, processor time."
        ),
        tables=[
            Table(
                headings=[
                    "pages",
                    "pages per CPU second",
                    "times tesserocr (range)",
                    "words found",
                    "worst page",
                ],
                rows=[
                    [
                        name,
                        f"{median(ours[name]):.2f}",
                        str(Ratio.between(ours[name], theirs[name])),
                        f"{median(recalls[name]):.3f}",
                        f"{min(recalls[name]):.3f}",
                    ]
                    for name in TURNS
                ],
            )
        ],
        peers=machine.versions_of("tesserocr"),
        measured_on=datetime.now(UTC).date(),
    )


def recall(expected: str, found: str) -> float:
    """Return the share of the expected words that were found."""
    wanted, have = Counter(_words(expected)), Counter(_words(found))
    return (wanted & have).total() / wanted.total()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _warm_up(system: System, words: Words) -> None:
    _recognize(system, [Scan(words, turn_degrees=0.0)])


def _recognize(system: System, scans: Sequence[Scan]) -> tuple[float, list[str]]:
    """Return the worker's processor time, and the text of each page."""
    path = system.scratch / "scans.pdf"
    write_scanned_pdf(path, scans)
    with Client(system.url, api_key=system.api_key) as client:
        with watched(system.pids()) as usage:
            job = client.upload(path, content_type="application/pdf")
            settled = client.wait_until_settled(job["job_id"], timeout=TIMEOUT)
        document_id = settled["result"]["document_id"]
        texts = [
            client.get(f"/documents/{document_id}/pages/{number}").json()["text"]
            for number in range(1, len(scans) + 1)
        ]
    return usage.cpu_seconds["ocr"], texts


def _by_tesserocr(scans: Sequence[Scan]) -> float:
    os.environ["OMP_THREAD_LIMIT"] = "1"  # noqa: TID251  # tesseract reads it; the workers set it too
    with tesserocr.PyTessBaseAPI(path=str(TESSDATA), lang="eng") as api:
        began = time.process_time()
        for scan in scans:
            api.SetImage(scan.image)
            api.SetSourceResolution(SCAN_DPI)
            api.GetUTF8Text()
        return time.process_time() - began
