import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.enrich import annotations
from pipeline.enrich.annotations import PageAnnotations, PageLimits
from pipeline.enrich.enricher import Enricher

MANY = 10_000


def annotate(
    text: str, *, enricher: Enricher, sentences: int = MANY, entities: int = MANY
) -> PageAnnotations:
    limits = PageLimits(sentences=sentences, entities=entities)
    return enricher.document().page(text, limits=limits)


def entities(text: str, enricher: Enricher) -> list[tuple[str, str]]:
    found = annotate(text, enricher=enricher)
    return [(entity.label, text[entity.start : entity.end]) for entity in found.entities]


def normal_forms(text: str, enricher: Enricher) -> list[str]:
    return [entity.normal for entity in annotate(text, enricher=enricher).entities]


def sentences(text: str, enricher: Enricher) -> list[str]:
    found = annotate(text, enricher=enricher)
    return [text[start:end] for start, end in found.sentences]


def test_passages_are_sentences_without_surrounding_white_space(english: Enricher) -> None:
    text = "  The first sentence.\n\nAnd a second\none!  \n"
    assert sentences(text, english) == ["The first sentence.", "And a second\none!"]


@pytest.mark.parametrize("text", ["", " \n ", "\n"])
def test_a_blank_page_has_no_passages(text: str, english: Enricher) -> None:
    assert annotate(text, enricher=english) == PageAnnotations()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to Bob.Smith@Example.com today.", [("EMAIL", "Bob.Smith@Example.com")]),
        ("See https://example.org/a?b=1.", [("URL", "https://example.org/a?b=1")]),
        ("On www.example.org you", [("URL", "www.example.org")]),
        ("README.md and here.In it", []),
        ("on 5 March 2024 and", [("DATE", "5 March 2024")]),
        ("on March 5th, 2024 and", [("DATE", "March 5th, 2024")]),
        ("in Sept. 2024 and", [("DATE", "Sept. 2024")]),
        ("on 2024-03-05 and", [("DATE", "2024-03-05")]),
        ("on 05.03.2024 and 3/5/2024", [("DATE", "05.03.2024"), ("DATE", "3/5/2024")]),
        ("section 1.2.34 of 45/67/8901", []),
        ("it may 2 be", []),
        ("costs $1,200.50 or", [("MONEY", "$1,200.50")]),
        ("costs US$ 3 million or", [("MONEY", "US$ 3 million")]),
        ("costs 4.5 bn euros or EUR 7", [("MONEY", "4.5 bn euros"), ("MONEY", "EUR 7")]),
        ("12.5 % of 10 percent", [("PERCENT", "12.5 %"), ("PERCENT", "10 percent")]),
        ("to DE89370400440532013000 by", [("IBAN", "DE89370400440532013000")]),
        ("to DE89 3704 0044 0532 0130 00 by", [("IBAN", "DE89 3704 0044 0532 0130 00")]),
        ("to DE88 3704 0044 0532 0130 00 by", []),
        ("where 5\nMarch\n2024 breaks", [("DATE", "5\nMarch\n2024")]),
        ("pay $ 5\n and", [("MONEY", "$ 5")]),
    ],
)
def test_rules_find_addresses_dates_and_amounts(
    text: str, found: list[tuple[str, str]], english: Enricher
) -> None:
    assert entities(text, english) == found


def test_mentions_of_the_same_thing_have_the_same_normal_form(english: Enricher) -> None:
    text = "Ann@X.org, ann@x.org; 5 dollars, 5 Dollar; NO93 8601 1117 947, NO9386011117947"
    assert normal_forms(text, english) == [
        *("ann@x.org", "ann@x.org"),
        *("5 dollar", "5 dollar"),
        *("NO9386011117947", "NO9386011117947"),
    ]


def test_the_text_of_an_entity_across_lines_is_on_one_line(english: Enricher) -> None:
    (entity,) = annotate("on 5\nMarch 2024", enricher=english).entities
    assert (entity.text, entity.normal) == ("5 March 2024", "5 march 2024")


def test_offsets_in_a_long_page_count_from_its_start(english: Enricher) -> None:
    line = "Write to someone@example.com about it.\n"
    text = line * 3_000
    found = annotate(text, enricher=english)
    places = range(0, len(text), len(line))
    assert [start for start, _ in found.sentences] == list(places)
    assert [entity.start for entity in found.entities] == [start + 9 for start in places]


def test_passages_and_entities_beyond_the_maximum_are_left_out_and_flagged(
    english: Enricher,
) -> None:
    found = annotate("Pay $1 and $2. " * 3, enricher=english, sentences=2, entities=3)
    assert len(found.sentences) == 2
    assert len(found.entities) == 3
    assert (found.more_sentences, found.more_entities) == (True, True)


def test_a_page_with_exactly_the_maximum_is_not_flagged(english: Enricher) -> None:
    found = annotate("Pay $1. Pay $2.", enricher=english, sentences=2, entities=2)
    assert (len(found.sentences), len(found.entities)) == (2, 2)
    assert (found.more_sentences, found.more_entities) == (False, False)


@pytest.mark.parametrize("characters", ["'", "$", "(", "'s", "\N{SECTION SIGN}"])
@pytest.mark.timeout(20)  # without a limit on words each case takes minutes
def test_a_page_of_punctuation_does_not_block_the_tokenizer(
    characters: str, english: Enricher
) -> None:
    found = annotate(characters * 40_000, enricher=english)
    assert len(found.sentences) == 1


@given(st.text("ab \n"), st.integers(min_value=1, max_value=10))
def test_pieces_and_their_offsets_make_up_the_text(whole: str, longest: int) -> None:
    found = list(annotations.pieces(whole, longest=longest))
    assert "".join(piece for _, piece in found) == whole
    assert all(whole[offset:].startswith(piece) for offset, piece in found)
    assert all(0 < len(piece) <= longest for _, piece in found)


def test_a_piece_ends_after_a_line_else_after_a_word_else_anywhere() -> None:
    assert [piece for _, piece in annotations.pieces("one two\nthree", longest=10)] == [
        "one two\n",
        "three",
    ]
    assert [piece for _, piece in annotations.pieces("one two three", longest=10)] == [
        "one two ",
        "three",
    ]
    assert [piece for _, piece in annotations.pieces("abcdefgh", longest=5)] == ["abcde", "fgh"]
