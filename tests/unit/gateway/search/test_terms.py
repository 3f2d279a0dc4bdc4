"""What a query looks for, and which passages are compared."""

from collections.abc import Mapping

import pytest

from gateway.search.candidates import (
    Base,
    base_of,
    crowded_selection_of,
    scope_of,
    selection_of,
)
from gateway.search.errors import SearchQueryInvalid
from gateway.search.query import parse
from gateway.search.terms import Terms, quoted, rarest, terms_of
from gateway.search_statistics import Shares

NORMAL: Mapping[str, str] = {
    "annual": "'annual'",
    "reports": "'report'",
    "die": "'die'",
    "hard": "'hard'",
    "the": "",
    "of": "",
    "what": "",
    "is": "",
    "1,5": "'1' <-> '5'",
    "annual reports": "'annual' <-> 'report'",
}


def as_written(text: str) -> str:
    return " <-> ".join(quoted(word) for word in text.replace(",", " ").split() if word != "²")


def terms(text: str, shares: Mapping[str, float] | None = None) -> Terms:
    """Return the terms of a query in English and as written."""
    query = parse(text)
    lexed = {
        "simple": {atom: as_written(atom.text) for atom in query.atoms},
        "english": {atom: NORMAL.get(atom.text, as_written(atom.text)) for atom in query.atoms},
    }
    return terms_of(query, lexed, shares=Shares(by_lexeme=shares or {}))


def conditions(found: Terms) -> list[str]:
    return [term.condition for term in found.wanted]


def test_a_word_is_found_as_written_and_in_its_normal_form() -> None:
    assert conditions(terms("annual reports")) == ["'annual'", "('reports' | 'report')"]


def test_a_phrase_is_found_as_written_alone() -> None:
    (term,) = terms('"annual reports"').wanted

    assert term.condition == (
        "('annual':D <-> 'reports':D | 'annual':A <-> 'reports':A & !('#l:en'))"
    )
    assert term.presence == "('annual' & 'reports' | 'annual' & 'reports' & !('#l:en'))"
    assert term.is_required


def test_a_prefix_and_alternatives_are_required() -> None:
    found = terms("contr* annual OR reports")

    assert conditions(found) == ["'contr':*", "('annual' | 'reports' | 'report')"]
    assert found.required == found.wanted


def test_stop_words_of_a_question_are_ignored() -> None:
    assert conditions(terms("what is the annual")) == ["'annual'"]


@pytest.mark.parametrize("text", ["die hard", "the hard", "what is the"])
def test_a_single_stop_word_and_a_query_of_stop_words_count(text: str) -> None:
    assert len(terms(text).wanted) == len(text.split())


def test_quotes_and_backslashes_stay_a_part_of_a_lexeme() -> None:
    assert conditions(terms("""a'b\\c)""")) == ["""'a''b\\\\c)'"""]


@pytest.mark.parametrize("text", ["²", '"²" annual', "² OR ²²".replace("²²", "²")])
def test_what_is_no_word_for_the_database_is_refused(text: str) -> None:
    with pytest.raises(SearchQueryInvalid, match="no word"):
        terms(text)


def test_an_optional_word_that_is_none_for_the_database_is_ignored() -> None:
    assert conditions(terms("² annual")) == ["'annual'"]


def test_the_rarest_terms_are_kept() -> None:
    found = rarest(terms('"hard" annual reports x', {"annual": 0.5, "report": 0.2}), limit=3)

    assert [term.atoms[0].text for term in found.wanted] == ["hard", "reports", "x"]


def base(found: Terms, *, passages: int = 1000) -> Base:
    return base_of(found, scope=scope_of(["#t:1"]), passages=passages, passages_of_all=1_000_000)


def selected(text: str, shares: Mapping[str, float]) -> tuple[str, ...]:
    return selection_of(base(terms(text, shares)), passages=1000, limit=100).conditions


def test_common_words_select_nothing_beside_rare_ones() -> None:
    shares = {"annual": 0.05, "report": 0.5}

    assert selected("annual reports hard", shares) == ("'#t:1' & ('hard' | 'annual')",)


def test_of_common_words_alone_passages_with_all_of_them_come_first() -> None:
    shares = {"annual": 0.3, "report": 0.5, "hard": 0.4}

    assert selected("annual reports hard", shares) == (
        "'#t:1' & 'annual' & 'hard' & ('reports' | 'report')",
        "'#t:1' & 'annual' & ('hard' | ('reports' | 'report')) & !('hard' & ('reports' | 'report'))",
        "'#t:1' & 'annual' & !('hard' | ('reports' | 'report'))",
    )


def test_what_is_required_selects_alone() -> None:
    found = base(terms('"annual" hard -reports'))

    annual = "('annual':D | 'annual':A & !('#l:en'))"
    indexed = f"'#t:1' & {annual} & !(('reports' | 'report'))"
    assert (found.indexed, found.checked) == (indexed, None)
    assert selection_of(found, passages=9, limit=9).conditions == (indexed,)
    assert crowded_selection_of(found).conditions == (
        f"{indexed} & ('hard')",
        f"{indexed} & !('hard')",
    )


def test_the_prefixes_of_a_small_tenant_are_checked_without_the_index() -> None:
    found = terms("contr* AND hard -repo*", {"contract": 0.04, "contrast": 0.01, "report": 0.2})

    small, large = base(found), base(found, passages=100_000)

    assert (small.indexed, small.checked) == ("'#t:1' & 'hard'", "'contr':* & !('repo':*)")
    assert (large.indexed, large.checked) == (
        "'#t:1' & 'contr':* & 'hard' & !('repo':*)",
        None,
    )
