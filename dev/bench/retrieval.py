"""How well search answers questions: words, vectors and both, beside BM25 over the same passages.

The documents go through the whole system; the questions through `GET /search`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import uuid4

from dev.bench import machine, plots
from dev.bench.plots import Bars
from dev.bench.sections import Section, Table
from dev.bench.system import System
from dev.client import Client
from dev.retrieval import questions, relevance
from dev.retrieval.library import library, write_pdfs
from dev.retrieval.peer import by_bm25
from dev.retrieval.questions import Question
from dev.retrieval.relevance import DEPTH, Place, Score

TIMEOUT: Final = timedelta(minutes=10)
SERVICES: Final = ("gateway", "relay", "transfer", "metadata", "ingest", "batch", "index")

BM25: Final = "BM25"
MODES: Final = {"words": "words", "vectors": "vectors", "hybrid": "hybrid"}
"""Methods of the product, by the value of `mode`."""

OTHER_LANGUAGE: Final = "crosslingual"
"""Kind of the questions that only a multilingual model answers."""

Rankings: TypeAlias = Mapping[str, Sequence[tuple[Question, Sequence[Place]]]]
"""By method, the first hits of every question."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Documents and questions about them."""

    name: str
    documents: Sequence[Path]
    questions: Sequence[Question]


def run(system: System, *, external: bool) -> Section:
    system.run_only(*SERVICES)
    tables, shown = [], []
    for collection in _collections(system, external=external):
        with Client(
            system.url, api_key=system.other_api_key(f"bench-retrieval-{uuid4().hex[:8]}")
        ) as client:
            passages = _ingest(client, collection.documents)
            system.report(f"retrieval: {collection.name}: {len(passages):,} passages")
            rankings = {
                BM25: by_bm25(passages, collection.questions),
                **{
                    name: [
                        (each, list(search(client, each, mode=mode)))
                        for each in collection.questions
                    ]
                    for name, mode in MODES.items()
                },
            }
        title = (
            f"{collection.name}: {len(collection.questions)} questions, {len(passages):,} passages"
        )
        tables.append(scores(rankings, title=title))
        plot = f"retrieval-{len(tables)}.svg"
        _plot(rankings, title=collection.name, to=system.plots / plot)
        shown.append(plot)
    system.empty_bucket()
    return Section(
        title="Finding answers",
        question=(
            f"nDCG@{DEPTH} of the pages that answer a question, and in brackets the share of questions with such a"
            f" page among the first {DEPTH} hits: `GET /search` by words alone, by vectors alone and by both, beside"
            f" BM25 (rank-bm25, words as they are) over the same passages. A page counts once; its further passages"
            " take up places."
        ),
        tables=tables,
        remarks=[
            "`lexical` questions use words of the answer, `keyword` ones its names and numbers, `semantic` ones other words.",
            f"`{OTHER_LANGUAGE}` questions are in another language than the answer; no words are common to both.",
        ],
        plots=shown,
        peers=machine.versions_of("rank-bm25"),
        measured_on=datetime.now(UTC).date(),
    )


def search(client: Client, question: Question, *, mode: str) -> Iterator[Place]:
    """Yield the places of the first hits."""
    answer = client.get("/search", q=question.text, mode=mode, limit=DEPTH)
    for hit in answer.json()["items"]:
        yield Place(hit["filename"], hit["page"])


def scores(rankings: Rankings, *, title: str) -> Table:
    """Compare the methods by kind of question."""
    of_kinds = {method: relevance.by_kind(its) for method, its in rankings.items()}
    kinds = list(next(iter(of_kinds.values())))
    rows = [[kind, *(_cell(of_kinds[method][kind]) for method in rankings)] for kind in kinds]
    for name, ignored in (("all", None), (f"all but {OTHER_LANGUAGE}", OTHER_LANGUAGE)):
        if ignored in {None, *kinds}:
            of_all = {
                method: Score.of([each for each in its if each[0].kind != ignored])
                for method, its in rankings.items()
            }
            rows.append([name, *(_cell(of_all[method]) for method in rankings)])
    return Table(headings=["kind", *rankings], rows=rows, title=title)


def _cell(score: Score) -> str:
    return f"{score.ndcg:.3f} ({score.hits:.2f})"


def _collections(system: System, *, external: bool) -> Iterator[Collection]:
    own = library()
    yield Collection(
        name="The project's own library",
        documents=write_pdfs(own.documents, to=system.scratch / "library"),
        questions=own.questions,
    )
    if external and system.questions is not None:
        asked = questions.load(system.questions)
        wanted = {
            path.name: path for each in system.documents for path in sorted(each.glob("*.pdf"))
        }
        if missing := {each.file for each in asked} - wanted.keys():
            raise FileNotFoundError(f"no directory of --documents has {', '.join(sorted(missing))}")
        yield Collection(
            name=system.questions.parent.name, documents=list(wanted.values()), questions=asked
        )


def _ingest(client: Client, documents: Sequence[Path]) -> list[tuple[Place, str]]:
    """Send the documents through the system; return all passages."""
    jobs = {path: client.upload(path, content_type="application/pdf") for path in documents}
    passages = []
    for path, job in jobs.items():
        settled = client.wait_until_settled(job["job_id"], timeout=TIMEOUT)
        if settled["status"] == "completed":
            document_id = settled["result"]["document_id"]
            _wait_until_indexed(client, document_id)
            passages += [
                (Place(path.name, each["page"]), each["text"])
                for each in _every(client, f"/documents/{document_id}/passages")
            ]
    return passages


def _wait_until_indexed(client: Client, document_id: str) -> None:
    """Return once search has the document with its vectors; its job does not wait for them."""
    ends = time.monotonic() + TIMEOUT.total_seconds()
    while client.get(f"/documents/{document_id}").json()["search"] != "complete":
        if time.monotonic() > ends:
            raise TimeoutError(f"the document {document_id} has no vectors")
        time.sleep(0.2)


def _every(client: Client, path: str) -> Iterator[dict[str, Any]]:
    """Yield the items of all pages of a list."""
    cursor: dict[str, str] = {}
    while True:
        answer = client.get(path, limit=100, **cursor).json()
        yield from answer["items"]
        if answer["next_cursor"] is None:
            return
        cursor = {"cursor": answer["next_cursor"]}


def _plot(rankings: Rankings, *, title: str, to: Path) -> None:
    of_kinds = {method: relevance.by_kind(its) for method, its in rankings.items()}
    kinds = list(next(iter(of_kinds.values())))
    plots.bars(
        Bars(
            title=f"{title}: nDCG@{DEPTH} (higher is better)",
            unit="nDCG",
            groups=kinds,
            series={
                method: [[by_kind[kind].ndcg] for kind in kinds]
                for method, by_kind in of_kinds.items()
            },
            ours=("hybrid",),
        ),
        to=to,
    )
