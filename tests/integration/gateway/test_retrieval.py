"""How well `GET /search` answers the questions of the project's own library, with the default model."""

from pathlib import Path

import pytest

from dev.retrieval import relevance
from dev.retrieval.library import library, write_pdfs
from dev.retrieval.peer import by_bm25
from dev.retrieval.questions import Question
from dev.retrieval.relevance import DEPTH, Place, Score
from pipeline.ingest.extractors.pdf.document import PdfExtractor
from tests.factories.documents import extract
from tests.integration.gateway.api import Api, BeginSession
from tests.integration.gateway.passages import searchable, vectors_added

pytestmark = pytest.mark.anyio

LIBRARY = library()

Rankings = list[tuple[Question, list[Place]]]


@pytest.fixture
async def texts(api: Api, transaction: BeginSession, tmp_path: Path) -> dict[Place, str]:
    """The pages of the library, which search finds."""
    pages: dict[Place, str] = {}
    for document, path in zip(
        LIBRARY.documents, write_pdfs(LIBRARY.documents, to=tmp_path), strict=True
    ):
        read = [page.text for page in extract(PdfExtractor(), path).pages]
        await searchable(
            api, transaction, *read, language=document.language, filename=document.file
        )
        pages |= {Place(document.file, page): text for page, text in enumerate(read, start=1)}
    await vectors_added(transaction)
    return pages


async def answered(api: Api, *, mode: str) -> Rankings:
    rankings = []
    for question in LIBRARY.questions:
        answer = await api.get("/search", q=question.text, mode=mode, limit=DEPTH)
        assert answer.status_code == 200, answer.text
        hits = [Place(hit["filename"], hit["page"]) for hit in answer.json()["items"]]
        rankings.append((question, hits))
    return rankings


async def test_words_and_meaning_together_answer_more_than_either_alone(
    api: Api, texts: dict[Place, str]
) -> None:
    rankings = {mode: await answered(api, mode=mode) for mode in ("words", "vectors", "hybrid")}
    rankings["BM25"] = by_bm25(list(texts.items()), LIBRARY.questions)
    scores = {name: Score.of(its).ndcg for name, its in rankings.items()}
    kinds = {name: relevance.by_kind(its) for name, its in rankings.items()}

    assert scores["hybrid"] > max(scores["words"], scores["vectors"])
    assert scores["hybrid"] > scores["BM25"] + 0.1
    # The names, numbers and phrases that only words find, and the paraphrases that only vectors find.
    assert kinds["hybrid"]["keyword"].ndcg > max(0.98, kinds["vectors"]["keyword"].ndcg)
    assert kinds["hybrid"]["lexical"].ndcg > 0.95
    assert kinds["hybrid"]["semantic"].ndcg > kinds["words"]["semantic"].ndcg + 0.4
    assert kinds["hybrid"]["semantic"].hits == 1
