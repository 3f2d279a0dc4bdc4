from dataclasses import replace
from pathlib import Path

import pytest
import spacy
from spacy.language import Language

from pipeline.ingest import enrich
from pipeline.ingest.enrich import LanguageModelNotFound
from pipeline.ingest.outcome import Truncation
from pipeline.ingest.sandbox.limits import ReadingLimits


def entities(text: str, language: Language, limits: ReadingLimits) -> list[tuple[str, str]]:
    found = enrich.annotate(text, language=language, limits=limits)
    return [(entity.label, text[entity.start : entity.end]) for entity in found.entities]


def normal_forms(text: str, language: Language, limits: ReadingLimits) -> list[str]:
    return [
        entity.normal for entity in enrich.annotate(text, language=language, limits=limits).entities
    ]


def sentences(text: str, language: Language, limits: ReadingLimits) -> list[str]:
    found = enrich.annotate(text, language=language, limits=limits)
    return [text[passage.start : passage.end] for passage in found.passages]


def test_passages_are_the_sentences_without_the_space_around_them(
    english: Language, limits: ReadingLimits
) -> None:
    text = "  The first sentence.\n\nAnd a second\none!  \n"
    assert sentences(text, english, limits) == ["The first sentence.", "And a second\none!"]


def test_passages_are_numbered_from_zero(english: Language, limits: ReadingLimits) -> None:
    found = enrich.annotate("One. Two. Three.", language=english, limits=limits)
    assert [passage.ordinal for passage in found.passages] == [0, 1, 2]


@pytest.mark.parametrize("text", ["", " \n ", "\n"])
def test_a_page_without_words_has_no_passages(
    text: str, english: Language, limits: ReadingLimits
) -> None:
    assert enrich.annotate(text, language=english, limits=limits) == enrich.NONE


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
    text: str, found: list[tuple[str, str]], english: Language, limits: ReadingLimits
) -> None:
    assert entities(text, english, limits) == found


def test_mentions_of_one_thing_have_one_normal_form(
    english: Language, limits: ReadingLimits
) -> None:
    text = "Ann@X.org, ann@x.org; 5 dollars, 5 Dollar; NO93 8601 1117 947, NO9386011117947"
    assert normal_forms(text, english, limits) == [
        *("ann@x.org", "ann@x.org"),
        *("5 dollar", "5 dollar"),
        *("NO9386011117947", "NO9386011117947"),
    ]


def test_an_entity_across_lines_is_told_on_one(english: Language, limits: ReadingLimits) -> None:
    (entity,) = enrich.annotate("on 5\nMarch 2024", language=english, limits=limits).entities
    assert (entity.text, entity.normal) == ("5 March 2024", "5 march 2024")


def test_a_long_page_is_read_in_pieces_with_the_right_places(
    english: Language, limits: ReadingLimits
) -> None:
    line = "Write to someone@example.com about it.\n"
    text = line * 3_000
    found = enrich.annotate(text, language=english, limits=limits)
    places = range(0, len(text), len(line))
    assert [(p.ordinal, p.start) for p in found.passages] == list(enumerate(places))
    assert [entity.start for entity in found.entities] == [start + 9 for start in places]


def test_a_page_gives_no_more_than_it_may(english: Language, limits: ReadingLimits) -> None:
    few = replace(limits, page_passages=2, page_entities=3)
    found = enrich.annotate("Pay $1 and $2. " * 3, language=english, limits=few)
    assert len(found.passages) == 2
    assert len(found.entities) == 3
    assert found.truncated == {Truncation.PAGE_PASSAGES, Truncation.PAGE_ENTITIES}


@pytest.mark.parametrize("characters", ["'", "$", "(", "'s", "\N{SECTION SIGN}"])
@pytest.mark.timeout(20)  # without a limit on words each takes minutes
def test_a_page_of_nothing_but_punctuation_does_not_stop_the_tokenizer(
    characters: str, english: Language, limits: ReadingLimits
) -> None:
    found = enrich.annotate(characters * 40_000, language=english, limits=limits)
    assert len(found.passages) == 1


def test_a_language_without_lemmas_still_has_sentences_and_rules(limits: ReadingLimits) -> None:
    any_language = enrich.load_language("blank:xx")
    text = "Ann@X.org. Pay 5 dollars."
    assert sentences(text, any_language, limits) == ["Ann@X.org.", "Pay 5 dollars."]
    assert normal_forms(text, any_language, limits) == ["ann@x.org", "5 dollars"]


def test_a_trained_model_is_taken_as_it_is_and_given_sentences(
    tmp_path: Path, limits: ReadingLimits
) -> None:
    model = spacy.blank("de")
    ruler = model.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "GPE", "pattern": "Ulm"}])  # type: ignore[attr-defined]  # add_pipe promises less than it gives
    model.to_disk(tmp_path / "model")

    loaded = enrich.load_language(str(tmp_path / "model"))

    assert loaded.lang == "de"
    assert entities("Um Ulm. Um Ulm herum.", loaded, limits) == [("GPE", "Ulm"), ("GPE", "Ulm")]
    assert sentences("Um Ulm. Um Ulm herum.", loaded, limits) == ["Um Ulm.", "Um Ulm herum."]


@pytest.mark.parametrize("name", ["no_such_model", "blank:klingon", "blank:"])
def test_a_model_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(LanguageModelNotFound, match=repr(name)):
        enrich.load_language(name)
