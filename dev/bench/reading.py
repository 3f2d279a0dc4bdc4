"""The cost of reading documents, beside bare loops over PDFium, pypdf and tesseract."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final

import psycopg
import pypdf
import pypdfium2

from dev.bench import machine, plots
from dev.bench.figures import Ratio, Spread
from dev.bench.papers import Words, write_text_pdf
from dev.bench.plots import Bars
from dev.bench.sections import Section, Table
from dev.bench.system import READERS_WITHOUT_NLP, System
from dev.bench.usage import Usage, watched
from dev.client import Client

CLIENTS: Final = 4
TIMEOUT: Final = timedelta(minutes=10)
SERVICES: Final = ("gateway", "relay", "transfer", "metadata")
READERS: Final = "ingest"
LONG_PAGES: Final = 100

# From the end of the transfer until the pages can be fetched.
READABLE: Final = """
    SELECT extract(epoch FROM ingest.finished_at - transfer.finished_at)::float * 1000
    FROM steps AS ingest JOIN steps AS transfer ON transfer.job_id = ingest.job_id AND transfer.name = 'transfer'
    WHERE ingest.name = 'ingest' AND ingest.finished_at >= %s
"""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Documents by their number of pages, and rounds."""

    documents: Sequence[tuple[int, int]]
    """Pairs: number of documents, pages of each."""
    single_pages: int
    rounds: int


FULL: Final = Extent(documents=((60, 1), (20, 5), (5, 20), (2, 120)), single_pages=100, rounds=3)
QUICK: Final = Extent(documents=((4, 1), (1, 5), (1, 120)), single_pages=5, rounds=1)


@dataclass(frozen=True, kw_only=True)
class Paper:
    path: Path
    pages: int


@dataclass(kw_only=True)
class Rates:
    """Pages per CPU second, one value per round."""

    all: list[float]
    long: list[float]


def run(system: System, *, extent: Extent) -> Section:
    papers = _make(system.scratch / "papers", extent=extent)
    long = [paper for paper in papers if paper.pages >= LONG_PAGES]
    seeds = count(1)
    names = ("Waybill", "Waybill without NLP", "PDFium alone", "pypdf alone")
    rates = {name: Rates(all=[], long=[]) for name in names}
    single: list[tuple[float, Spread]] = []
    for number in range(extent.rounds):
        for name, readers in (
            ("Waybill", READERS),
            ("Waybill without NLP", READERS_WITHOUT_NLP.name),
        ):
            system.run_only(*SERVICES, readers)
            _read(system, papers[:2], seed=next(seeds))  # every process has read a document
            for kept, chosen in ((rates[name].all, papers), (rates[name].long, long)):
                usage = _read(system, chosen, seed=next(seeds))
                kept.append(_pages(chosen) / usage.cpu_seconds[readers])
            system.report(f"reading: {name}: {rates[name].all[-1]:.0f} pages/CPU s")
            if readers == READERS:
                single.append(_single_pages(system, extent.single_pages, seed=next(seeds)))
        for name, read in (("PDFium alone", _by_pdfium), ("pypdf alone", _by_pypdf)):
            rates[name].all.append(_bare(read, papers))
            rates[name].long.append(_bare(read, long))
        system.report(f"reading: round {number + 1} of {extent.rounds}")
    system.empty_bucket()
    section = _section(rates, single, papers=papers, extent=extent)
    _plot(rates, to=system.plots / "reading.svg")
    return section


def _make(directory: Path, *, extent: Extent) -> list[Paper]:
    directory.mkdir(exist_ok=True)
    words = Words(seed=1)
    papers = []
    for number, pages in (
        (number, pages) for copies, pages in extent.documents for number in range(copies)
    ):
        path = directory / f"{pages}-pages-{number}.pdf"
        write_text_pdf(path, pages=pages, words=words)
        papers.append(Paper(path=path, pages=pages))
    return papers


def _pages(papers: Sequence[Paper]) -> int:
    return sum(paper.pages for paper in papers)


def _read(system: System, papers: Sequence[Paper], *, seed: int) -> Usage:
    """Upload papers and return the usage of all processes until they are read."""
    with (
        Client(system.url, api_key=system.api_key) as client,
        ThreadPoolExecutor(CLIENTS) as threads,
        watched(system.pids()) as usage,
    ):
        for job in [threads.submit(_read_one, client, paper, seed=seed) for paper in papers]:
            job.result()
    return usage


def _read_one(client: Client, paper: Paper, *, seed: int) -> None:
    # The comment after the last line gives other bytes: the result of the same bytes is reused.
    content = paper.path.read_bytes() + f"\n% {seed}\n".encode()
    answer = client.http.post(
        "/upload-async", files={"file": (paper.path.name, content, "application/pdf")}
    )
    answer.raise_for_status()
    settled = client.wait_until_settled(answer.json()["job_id"], timeout=TIMEOUT)
    if settled["status"] != "completed" or settled["result"]["pages"] != paper.pages:
        raise AssertionError(settled)


def _single_pages(system: System, papers: int, *, seed: int) -> tuple[float, Spread]:
    """Return the readers' CPU milliseconds per one-page document, and the time from stored to readable."""
    path = system.scratch / "papers" / "single.pdf"
    write_text_pdf(path, pages=1, words=Words(seed=2))
    paper = Paper(path=path, pages=1)
    with system.database() as database, Client(system.url, api_key=system.api_key) as client:
        began_at = _now(database)
        with watched(system.pids()) as usage:
            for number in range(papers):  # one after another: nothing waits
                _read_one(client, paper, seed=seed * 1_000_000 + number)
        waits = [row[0] for row in database.execute(READABLE, (began_at,)).fetchall()]
    return usage.cpu_seconds[READERS] / papers * 1000, Spread.of(waits)


def _now(database: psycopg.Connection) -> datetime:
    row = database.execute("SELECT now()").fetchone()
    if row is None:
        raise AssertionError  # the statement always returns a row
    now: datetime = row[0]
    return now


def _bare(read: Callable[[Path], int], papers: Sequence[Paper]) -> float:
    began = time.process_time()
    pages = sum(read(paper.path) for paper in papers)
    return pages / (time.process_time() - began)


def _by_pdfium(path: Path) -> int:
    with pypdfium2.PdfDocument(path) as document:
        for page in document:
            page.get_textpage().get_text_range()
        return len(document)


def _by_pypdf(path: Path) -> int:
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    reader = pypdf.PdfReader(path)
    for page in reader.pages:
        page.extract_text()
    return len(reader.pages)


def _section(
    rates: dict[str, Rates],
    single: Sequence[tuple[float, Spread]],
    *,
    papers: Sequence[Paper],
    extent: Extent,
) -> Section:
    rows = [
        [
            name,
            f"{median(rate.all):.0f}",
            str(Ratio.between(rate.all, rates["PDFium alone"].all)),
            str(Ratio.between(rate.all, rates["pypdf alone"].all)),
            f"{median(rate.long):.0f}",
            str(Ratio.between(rate.long, rates["PDFium alone"].long)),
        ]
        for name, rate in rates.items()
    ]
    cpu, waits = zip(*single, strict=True)
    return Section(
        title="Reading documents",
        question=(
            f"{len(papers)} PDFs with {_pages(papers)} pages of {_words_text()} go through the whole system."
            " Counted is the processor time of the worker that reads them: download, sandbox, text,"
            " language, sentences, entities, and its share of the database's work. The peers only take"
            " the text of the same files, in this process, with nothing else around them."
        ),
        tables=[
            Table(
                headings=[
                    "pages per CPU second",
                    "all",
                    "times PDFium (range)",
                    "times pypdf (range)",
                    f"documents from {LONG_PAGES} pages",
                    "times PDFium (range)",
                ],
                rows=rows,
            ),
            Table(
                title="Documents of one page, one after another",
                headings=["", "median of the rounds"],
                rows=[
                    ["CPU of the worker", f"{median(cpu):.1f} ms"],
                    ["stored until readable, p50", f"{median(each.p50 for each in waits):.0f} ms"],
                    ["stored until readable, p95", f"{median(each.p95 for each in waits):.0f} ms"],
                ],
            ),
        ],
        remarks=[f"{extent.rounds} rounds, in turns."],
        plots=["reading.svg"],
        peers=machine.versions_of("pypdf", "pypdfium2"),
        measured_on=datetime.now(UTC).date(),
    )


def _words_text() -> str:
    return "about 420 English words"


def _plot(rates: dict[str, Rates], *, to: Path) -> None:
    plots.bars(
        Bars(
            title="Reading documents (higher is better)",
            unit="pages per CPU second",
            groups=["all documents", f"from {LONG_PAGES} pages"],
            series={name: [rate.all, rate.long] for name, rate in rates.items()},
            ours=("Waybill", "Waybill without NLP"),
        ),
        to=to,
    )
