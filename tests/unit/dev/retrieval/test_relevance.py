from math import isclose, log2
from pathlib import Path

import msgspec
import pytest

from dev.retrieval import questions, relevance
from dev.retrieval.questions import Question
from dev.retrieval.relevance import Place, Score

FIRST, SECOND, OTHER = Place("a.pdf", 1), Place("a.pdf", 2), Place("b.pdf", 1)


def question(*pages: int, kind: str = "lexical") -> Question:
    return Question(text="why", kind=kind, file="a.pdf", pages=list(pages))


def test_the_best_ranking_gains_one() -> None:
    assert relevance.ndcg([FIRST, SECOND, OTHER], {FIRST, SECOND}) == 1


def test_a_lower_place_gains_less() -> None:
    assert isclose(relevance.ndcg([OTHER, FIRST], {FIRST}), 1 / log2(3))


def test_a_page_gains_once() -> None:
    assert isclose(relevance.ndcg([FIRST, FIRST], {FIRST, SECOND}), 1 / (1 + 1 / log2(3)))


def test_the_eleventh_hit_does_not_count() -> None:
    hits = [OTHER] * 10 + [FIRST]

    assert relevance.ndcg(hits, {FIRST}) == 0
    assert not relevance.is_hit(hits, {FIRST})
    assert relevance.is_hit(hits[1:], {FIRST})


def test_a_question_without_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="no page is relevant"):
        relevance.ndcg([FIRST], set())


def test_the_score_of_a_kind_is_the_mean_of_its_questions() -> None:
    found = (question(1), [FIRST])
    missed = (question(2), [OTHER])
    other = (question(1, kind="keyword"), [FIRST])

    scores = relevance.by_kind([found, missed, other])

    assert scores == {
        "keyword": Score(questions=1, ndcg=1, hits=1),
        "lexical": Score(questions=2, ndcg=0.5, hits=0.5),
    }


def test_questions_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "questions.json"
    file.write_text('[{"q": "why", "kind": "lexical", "file": "a.pdf", "pages": [1]}]')

    assert questions.load(file) == [question(1)]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "questions.json"
    file.write_text('{"q": "why"}')

    with pytest.raises(msgspec.ValidationError):
        questions.load(file)
