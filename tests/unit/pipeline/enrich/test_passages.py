import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.enrich import languages, passages
from pipeline.enrich.passages import (
    SHORTEST,
    Budget,
    Range,
    TextPassage,
    passages_of,
    tokens_of,
)
from pipeline.enrich.sentences import WALL, sentences

BUDGET = Budget(tokens=50, overlap=10)

SENTENCE = "The consignment note names the port of loading."  # 12 tokens


def sentences_of(text: str, running: Sequence[Range] = ()) -> list[Range]:
    """Return the sentences of a page as its reader finds them."""
    walled = list(text)
    for start, end in running:
        walled[start:end] = WALL * (end - start)
    return list(sentences("".join(walled), rules=languages.rules("en")))


def found(
    text: str,
    *,
    running: Sequence[Range] = (),
    budget: Budget = BUDGET,
    has_sentences: bool = True,
) -> list[TextPassage]:
    return passages_of(
        text,
        sentences=sentences_of(text, running) if has_sentences else (),
        running=running,
        budget=budget,
    )


def texts(text: str, *, running: Sequence[Range] = (), has_sentences: bool = True) -> list[str]:
    passages = found(text, running=running, has_sentences=has_sentences)
    return [text[start:end] for start, end, _ in passages]


def test_a_passage_has_whole_sentences() -> None:
    text = " ".join([SENTENCE] * 9)
    passages = texts(text)
    assert len(passages) > 1
    assert all(each.startswith("The consignment") for each in passages)
    assert all(each.endswith("of loading.") for each in passages)


def test_neighbours_share_a_short_sentence() -> None:
    text = f"{SENTENCE} {SENTENCE} {SENTENCE} It was signed. {SENTENCE} {SENTENCE} {SENTENCE}"
    first, second = texts(text)
    assert first.endswith("It was signed.")
    assert second.startswith("It was signed.")


def test_a_long_sentence_is_not_repeated() -> None:
    ranges = found(" ".join([SENTENCE] * 9))
    assert all(one.end <= other.start for one, other in pairwise(ranges))


def test_a_sentence_beyond_the_budget_is_cut_at_spaces_into_equal_parts() -> None:
    text = "the port of loading and the carrier " * 25
    passages = texts(text)
    assert all(len(each) > len(text) / len(passages) / 2 for each in passages)
    assert " ".join(passages) == text.strip()


def test_a_word_beyond_the_budget_is_cut() -> None:
    text = "x" * 27_000
    assert "".join(texts(text)) == text
    assert max(each.tokens for each in found(text)) <= BUDGET.most


@pytest.mark.parametrize("unit", ["a\n", "船", "x", "ab ", ". "])
def test_a_page_is_cut_in_linear_time(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = unit * (200_000 // len(unit))
    measured = 0

    def measure(self: passages.Measure, start: int, end: int) -> int:
        nonlocal measured
        measured += end - start
        return real(self, start, end)

    real = passages.Measure.__call__
    monkeypatch.setattr(passages.Measure, "__call__", measure)

    passages_of(text, sentences=(), running=(), budget=BUDGET)

    assert measured <= 30 * len(text)


def test_a_short_remainder_is_part_of_the_last_passage() -> None:
    text = " ".join([SENTENCE] * 4) + " It ends."
    assert texts(text) == [text]


def test_a_heading_is_not_a_passage_of_its_own() -> None:
    heading = "Introduction\n\n"
    text = heading + "The carrier signs the note " * 7
    assert texts(text)[0].startswith(heading)


def test_headers_and_footers_are_left_out() -> None:
    header, body, footer = "Annual report", f"{SENTENCE} {SENTENCE}", "Page 3 of 9"
    text = f"{header}\n{body}\n{footer}"
    running = [(0, len(header)), (len(text) - len(footer), len(text))]
    assert texts(text, running=running) == [body]


def test_text_without_sentences_is_grouped_by_lines() -> None:
    lines = [f"{number} pieces of cargo in the hold" for number in range(40)]
    passages = texts("\n".join(lines), has_sentences=False)
    assert len(passages) > 1
    assert all(set(each.split("\n")) <= set(lines) for each in passages)


def test_text_after_the_last_sentence_of_a_limit_is_in_a_passage() -> None:
    text = f"{SENTENCE}\nThe second line.\nThe third line."
    passages = passages_of(text, sentences=[(0, len(SENTENCE))], running=(), budget=BUDGET)
    assert passages == [TextPassage(0, len(text), tokens_of(text))]


@pytest.mark.parametrize("text", ["", " \n ", "Total", "- 3 -", "—" * 20, "a - b -"])
def test_a_page_of_next_to_nothing_has_no_passage(text: str) -> None:
    assert texts(text) == []


@pytest.mark.parametrize("text", ["Appendix", "Page 12", "付録資料一覧", "परिशिष्ट"])
def test_a_page_of_one_word_or_number_is_a_passage(text: str) -> None:
    assert texts(text) == [text]


def test_a_scrap_between_running_parts_is_joined_to_the_text_before_it() -> None:
    text = f"{SENTENCE}\nPage 3\nTotal"
    start = len(SENTENCE) + 1
    assert texts(text, running=[(start, start + len("Page 3"))]) == [text]


def test_characters_of_scripts_without_spaces_are_tokens() -> None:
    assert tokens_of("abcd") == 1
    assert tokens_of("船荷証券") == 4
    assert tokens_of("船荷 abcd") == 4
    assert tokens_of("") == 1


WORDS = st.sampled_from(
    (
        "The",
        "carrier",
        "signs",
        "port.",
        "12.5%",
        "—",
        "a",
        "船荷証券。",
        "München",
        "\n",
        "\n\n",
        "x" * 300,
    )
)


@st.composite
def pages(draw: st.DrawFn) -> tuple[str, list[Range]]:
    """Draw the text of a page and its running parts."""
    text = " ".join(draw(st.lists(WORDS, max_size=120)))
    bounds = sorted(draw(st.sets(st.integers(0, len(text)), max_size=4)))
    return text, list(zip(bounds[::2], bounds[1::2], strict=False))


@settings(deadline=None)
@given(page=pages(), has_sentences=st.booleans())
@example(page=("x" * 5_000, []), has_sentences=False)
def test_every_word_of_a_page_is_in_a_passage(
    page: tuple[str, list[Range]], *, has_sentences: bool
) -> None:
    text, running = page
    passages = found(text, running=running, has_sentences=has_sentences)

    assert passages == sorted(passages)
    for start, end, tokens in passages:
        passage = text[start:end]
        assert passage == passage.strip()
        assert len(passage) >= SHORTEST
        assert tokens == tokens_of(passage) <= 2 * BUDGET.tokens
    left = list(text)
    for start, end, *_ in (*passages, *running):
        left[start:end] = "\0" * (end - start)
    for scrap in re.split("\0+", "".join(left)):
        has_word = sum(map(str.isalpha, scrap)) >= 3 or any(map(str.isdigit, scrap))
        assert len(scrap.strip()) < SHORTEST or not has_word


@settings(deadline=None)
@given(text=st.text(max_size=400), has_sentences=st.booleans())
def test_any_text_has_bounded_passages(text: str, *, has_sentences: bool) -> None:
    for passage in found(text, has_sentences=has_sentences):
        assert passage.tokens <= BUDGET.most
