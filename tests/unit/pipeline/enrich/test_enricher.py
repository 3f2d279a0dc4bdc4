from pathlib import Path

import pytest
import spacy

from pipeline.enrich.annotations import DocumentSummary, PageAnnotations, PageLimits
from pipeline.enrich.enricher import DocumentEnricher, Enricher, LanguageModelNotFound

LIMITS = PageLimits(sentences=10_000, entities=10_000)
ENGLISH = "The invoice is due within thirty days of its receipt. Please pay $5 by 3 May 2024."
GERMAN = "Die Rechnung ist innerhalb von dreißig Tagen zu bezahlen, spätestens am 3. Mai 2024."
STATE_MAX = 64 * 1024


def annotate(enricher: Enricher, text: str, limits: PageLimits = LIMITS) -> PageAnnotations:
    return enricher.document().page(text, limits=limits)


def after(document: DocumentEnricher, *pages: str) -> DocumentEnricher:
    for text in pages:
        document.page(text, limits=LIMITS)
    return document


def test_a_page_has_sentences_entities_and_a_language(enricher: Enricher) -> None:
    page = annotate(enricher, ENGLISH)
    assert [ENGLISH[start:end] for start, end in page.sentences] == [
        "The invoice is due within thirty days of its receipt.",
        "Please pay $5 by 3 May 2024.",
    ]
    assert [(each.label, each.text, each.normal) for each in page.entities] == [
        ("MONEY", "$5", "5 USD"),
        ("DATE", "3 May 2024", "2024-05-03"),
    ]
    assert [ENGLISH[each.start : each.end] for each in page.entities] == ["$5", "3 May 2024"]
    assert page.language == "en"
    assert page.language_confidence is not None
    assert 0.9 < page.language_confidence <= 1


@pytest.mark.parametrize("text", ["", " \n ", "\n"])
def test_a_blank_page_has_nothing(text: str, enricher: Enricher) -> None:
    assert annotate(enricher, text) == PageAnnotations()


def test_the_text_of_an_entity_is_on_one_line(enricher: Enricher) -> None:
    text = "on 5\nMarch 2024 at https://example.org/a-\nb/c"
    assert [each.text for each in annotate(enricher, text).entities] == [
        "5 March 2024",
        "https://example.org/a-b/c",
    ]


def test_entities_do_not_overlap(enricher: Enricher) -> None:
    found = annotate(enricher, "https://example.org/2024-03-05?to=ann@example.org").entities
    assert [each.label for each in found] == ["URL"]


def test_mentions_of_the_same_thing_have_the_same_normal_form(enricher: Enricher) -> None:
    text = "ann@X.org, ann@x.org; $5 and 5.00 USD; NO93 8601 1117 947, NO9386011117947"
    assert [entity.normal for entity in annotate(enricher, text).entities] == [
        *("ann@x.org", "ann@x.org"),
        *("5 USD", "5 USD"),
        *("NO9386011117947", "NO9386011117947"),
    ]


def test_ignored_parts_have_neither_sentences_nor_entities_nor_a_language(
    enricher: Enricher,
) -> None:
    header = "Die Rechnung der Gesellschaft vom 1. Mai 2020"
    text = f"{header}\n{ENGLISH}\n{header}"
    ignored = [(0, len(header)), (len(text) - len(header), len(text))]
    page = enricher.document().page(text, limits=LIMITS, ignored=ignored)
    assert [text[start:end] for start, end in page.sentences] == [
        "The invoice is due within thirty days of its receipt.",
        "Please pay $5 by 3 May 2024.",
    ]
    assert [each.text for each in page.entities] == ["$5", "3 May 2024"]
    assert page.language == "en"


def test_sentences_and_entities_beyond_the_maximum_are_left_out_and_flagged(
    enricher: Enricher,
) -> None:
    page = annotate(enricher, "Pay $1 and $2. " * 3, limits=PageLimits(sentences=2, entities=3))
    assert (len(page.sentences), len(page.entities)) == (2, 3)
    assert (page.more_sentences, page.more_entities) == (True, True)


def test_a_page_with_exactly_the_maximum_is_not_flagged(enricher: Enricher) -> None:
    page = annotate(enricher, "Pay $1. Pay $2.", limits=PageLimits(sentences=2, entities=2))
    assert (len(page.sentences), len(page.entities)) == (2, 2)
    assert (page.more_sentences, page.more_entities) == (False, False)


def test_a_page_without_a_language_is_read_by_the_rules_of_the_document(enricher: Enricher) -> None:
    document = after(enricher.document(), GERMAN)
    (amount,) = document.page("1.234 EUR", limits=LIMITS).entities
    assert amount.normal == "1234 EUR"
    (amount,) = enricher.document().page("1.234 EUR", limits=LIMITS).entities
    assert amount.normal == "1.234 EUR"


def test_a_document_has_the_language_of_most_of_its_text(enricher: Enricher) -> None:
    summary = after(enricher.document(), GERMAN, ENGLISH, GERMAN, GERMAN, "12345").summary()
    assert summary.language == "de"
    assert summary.language_confidence == pytest.approx(0.75, abs=0.05)


def test_pages_too_short_for_a_language_have_one_together(enricher: Enricher) -> None:
    document = enricher.document()
    pages = ["The results", "of this year", "are better", "than those before"]
    assert [document.page(text, limits=LIMITS).language for text in pages] == [None] * 4
    assert document.summary().language == "en"


@pytest.mark.parametrize(
    "pages",
    [
        [],
        ["12.5 AX-7 99", "DE89 3704 0044"],
        ["www.example.org/the/whole/of/it"],
        ["17"],
    ],
)
def test_a_document_without_enough_words_has_no_language(
    pages: list[str], enricher: Enricher
) -> None:
    assert after(enricher.document(), *pages).summary().language is None


def test_enrichment_goes_on_from_a_state(enricher: Enricher) -> None:
    pages = [GERMAN, "Der Vertrag der Gesellschaft. " * 3, ENGLISH, "13/5/2024", GERMAN]
    whole = after(enricher.document(), *pages)
    halves = after(enricher.document(after(enricher.document(), *pages[:3]).state()), *pages[3:])
    assert halves.summary() == whole.summary()
    assert halves.state() == whole.state()


def test_the_state_of_a_long_document_is_small(enricher: Enricher) -> None:
    document = enricher.document()
    for number in range(200):
        letters = "".join(chr(0x4E00 + number * 40 + place % 40) for place in range(1_000))
        words = " ".join(f"xy{letters[place : place + 40]}" for place in range(0, 900, 10))
        document.page(f"The end of it. {words}.", limits=LIMITS)
    assert len(document.state()) <= STATE_MAX


def test_an_enricher_that_is_off_finds_nothing() -> None:
    off = Enricher("none")
    document = after(off.document(), ENGLISH)
    assert annotate(off, ENGLISH) == PageAnnotations()
    assert document.summary() == DocumentSummary()


@pytest.mark.parametrize("name", ["no_such_model", "blank:klingon", "blank:", "blank:../en"])
def test_the_error_names_a_missing_pipeline(name: str) -> None:
    with pytest.raises(LanguageModelNotFound, match=repr(name)):
        Enricher(name)


def test_a_pipeline_adds_its_names_to_pages_of_its_language(tmp_path: Path) -> None:
    model = spacy.blank("de")
    ruler = model.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "GPE", "pattern": "Ulm"}, {"label": "DATE", "pattern": "Mai"}])  # type: ignore[attr-defined]  # add_pipe is typed as returning a callable
    model.to_disk(tmp_path / "model")
    german = Enricher(str(tmp_path / "model"))

    found = annotate(german, f"{GERMAN} Der Vertrag wurde in Ulm geschlossen.").entities
    assert [(each.label, each.normal) for each in found] == [
        ("DATE", "2024-05-03"),
        ("GPE", "ulm"),
    ]
    assert (
        annotate(german, f"{ENGLISH} It was sent from Ulm.").entities
        == annotate(german, ENGLISH).entities
    )
