"""The query language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.search.errors import SearchQueryInvalid
from gateway.search.query import LENGTH_MAX, Atom, AtomKind, Query, parse


def atoms_of(query: Query) -> list[list[tuple[str, str]]]:
    return [[(each.kind, each.text) for each in group.alternatives] for group in query.groups]


@pytest.mark.parametrize(
    ("text", "groups", "required"),
    [
        ("annual report", [[("word", "annual")], [("word", "report")]], []),
        ("annual  annual", [[("word", "annual")]], []),
        ('"annual  report" of', [[("phrase", "annual report")], [("word", "of")]], [0]),
        ("“Jahresbericht 2024”", [[("phrase", "Jahresbericht 2024")]], [0]),
        ("„Jahresbericht“ x1", [[("phrase", "Jahresbericht")], [("word", "x1")]], [0]),
        ("contr* law", [[("prefix", "contr")], [("word", "law")]], [0]),
        ("(contr*)", [[("prefix", "contr")]], [0]),
        ("a OR b c", [[("word", "a"), ("word", "b")], [("word", "c")]], [0]),
        (
            'a OR "b c" OR d*e OR f'.replace("d*e", "def*"),
            [[("word", "a"), ("phrase", "b c"), ("prefix", "def"), ("word", "f")]],
            [0],
        ),
        ("a AND b c", [[("word", "a")], [("word", "b")], [("word", "c")]], [0, 1]),
        ("or and not", [[("word", "or")], [("word", "and")], [("word", "not")]], []),
        ("well-known - 3-5", [[("word", "well-known")], [("word", "3-5")]], []),
        ("What is it?", [[("word", "What")], [("word", "is")], [("word", "it?")]], []),
        ("C++ & 5°", [[("word", "C++")], [("word", "5°")]], []),
        ("शब्द*", [[("prefix", "शब्द")]], [0]),
    ],
)
def test_a_query_is_read(
    text: str, groups: list[list[tuple[str, str]]], required: list[int]
) -> None:
    query = parse(text)

    assert atoms_of(query) == groups
    assert [place for place, group in enumerate(query.groups) if group.is_required] == required
    assert not query.excluded


def test_a_minus_excludes_a_word_a_phrase_and_a_prefix() -> None:
    query = parse('law -tax -"old law" -"-5" -draf*')

    assert atoms_of(query) == [[("word", "law")]]
    assert query.excluded == (
        Atom(kind=AtomKind.WORD, text="tax"),
        Atom(kind=AtomKind.PHRASE, text="old law"),
        Atom(kind=AtomKind.PHRASE, text="-5"),
        Atom(kind=AtomKind.PREFIX, text="draf"),
    )
    assert query.has_operators
    assert query.text == "law"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no word"),
        (" - & ()", "no word"),
        ('""', "no word"),
        ("-tax", "only excluded"),
        ('annual "report', "not closed"),
        ("OR law", "between two"),
        ("law OR", "no word after"),
        ("law AND OR tax", "between two"),
        ("law OR -tax", "excluded"),
        ("law -tax OR levy", "between two"),
        ("la*", "at least 3"),
        ("l*w", "end of a word"),
        ("law**", "end of a word"),
        ("foo-bar*", "letters and digits"),
        (" OR ".join(f"w{number}" for number in range(33)), "more than 32"),
    ],
)
def test_a_query_that_cannot_be_read_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(SearchQueryInvalid, match=reason):
        parse(text)


@given(
    st.one_of(
        st.text(max_size=LENGTH_MAX),
        st.lists(
            st.sampled_from(['"', "-", "*", " ", "OR", "AND", "law", "tax*", "3.5", "„", "(", "é"]),
            max_size=40,
        ).map("".join),
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        query = parse(text)
    except SearchQueryInvalid:
        return
    assert query.groups
    for atom in query.atoms:
        assert any(map(str.isalnum, atom.text))
        assert atom.kind is AtomKind.PHRASE or not set(atom.text) & {" ", '"'}
        assert atom.kind is not AtomKind.PREFIX or "*" not in atom.text
