"""What a query looks for, and which passages are compared."""

from collections.abc import Mapping

import pytest

from gateway.search.candidates import (
    Base,
    Selection,
    Sizes,
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
    assert term.presence == "('annual' & 'reports')"
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


def base(found: Terms, sizes: Sizes) -> Base:
    return base_of(found, scope=scope_of(["#t:1"]), scope_share=1, sizes=sizes)


def sizes(of_tenant: int) -> Sizes:
    return Sizes(of_tenant=of_tenant, of_all=1_000_000, rare=0.001)


def selected(
    text: str, shares: Mapping[str, float], *, passages: int = 1000, limit: int = 100
) -> Selection:
    its = sizes(passages)
    return selection_of(base(terms(text, shares), its), sizes=its, limit=limit)


def test_common_words_select_nothing_beside_rare_ones() -> None:
    shares = {"annual": 0.05, "report": 0.5}

    selection = selected("annual reports hard", shares)

    assert selection.conditions == ("'#t:1' & ('hard' | 'annual')",)
    assert {term.atoms[0].text for term in selection.decisive} == {"annual", "hard"}


def test_of_common_words_alone_passages_with_all_of_them_come_first() -> None:
    shares = {"annual": 0.3, "report": 0.5, "hard": 0.4}

    assert selected("annual reports hard", shares).conditions == (
        "'#t:1' & 'annual' & ('reports' | 'report') & 'hard'",
        "'#t:1' & 'annual' & (('reports' | 'report') | 'hard')",
        "'#t:1' & 'annual'",
    )


def test_of_many_passages_with_rare_words_those_with_two_of_them_come_first() -> None:
    shares = {"report": 0.5}

    assert selected("annual reports hard", shares, passages=500_000).conditions == (
        "'#t:1' & 'annual' & ('reports' | 'report') & 'hard'",
        "'#t:1' & ('annual' & 'hard')",
        "'#t:1' & ('annual' | 'hard')",
    )


def test_of_many_passages_with_alternatives_those_with_all_of_them_come_first() -> None:
    shares = {"annual": 0.002, "report": 0.01}

    assert selected("annual OR reports", shares, passages=500_000).conditions == (
        "'#t:1' & ('annual' | 'reports' | 'report') & 'annual' & ('reports' | 'report')",
        "'#t:1' & ('annual' | 'reports' | 'report')",
    )


def test_a_common_word_is_looked_for_in_the_newest_passages_until_enough_have_it() -> None:
    walk = selected("annual", {"annual": 0.5}, passages=500_000, limit=2_000).walk

    assert walk is not None
    assert (walk.condition, walk.read_max) == ("'#t:1' & 'annual'", 12_000)


def test_a_common_prefix_of_a_small_tenant_is_looked_for_in_its_newest_passages() -> None:
    shares = {"contract": 0.05, "contrast": 0.04}

    assert selected("contr*", shares, passages=10_000).walk is not None
    assert selected("contract", shares, passages=10_000).walk is not None
    assert selected("contract", shares, passages=1_000).walk is None


@pytest.mark.parametrize("text", ["hard", "annual hard", '"annual reports"', "reports"])
def test_what_few_passages_have_is_found_by_the_index(text: str) -> None:
    shares = {"annual": 0.5, "report": 0.005}

    assert selected(text, shares, passages=500_000).walk is None


def test_what_is_required_selects_alone() -> None:
    its = sizes(9)
    found = base(terms('"annual" hard -reports'), its)

    annual = "('annual':D | 'annual':A & !('#l:en'))"
    assert found.indexed == "'#t:1' & 'annual'"
    assert found.checked == f"{annual} & !(('reports' | 'report'))"
    assert selection_of(found, sizes=its, limit=9).conditions == (found.indexed,)
    assert crowded_selection_of(found, sizes=its, limit=9).conditions == (
        f"{found.indexed} & 'hard'",
        found.indexed,
    )


def test_a_word_that_most_passages_have_is_excluded_by_the_index() -> None:
    found = base(terms("hard -annual", {"annual": 0.6}), sizes(1000))

    assert (found.indexed, found.checked) == ("'#t:1' & !('annual')", None)


def test_the_prefixes_of_a_small_tenant_are_checked_without_the_index() -> None:
    found = terms("contr* AND hard", {"contract": 0.04, "contrast": 0.01})

    small, large = base(found, sizes(1000)), base(found, sizes(100_000))

    assert (small.indexed, small.checked) == ("'#t:1' & 'hard'", "'contr':*")
    assert (large.indexed, large.checked) == ("'#t:1' & 'contr':* & 'hard'", None)
