from pathlib import Path

import pytest
import spacy

from pipeline.enrich import language
from pipeline.enrich.annotations import PageAnnotations, PageLimits
from pipeline.enrich.enricher import Enricher
from pipeline.enrich.language import LanguageModelNotFound


def annotations(text: str, enricher: Enricher) -> PageAnnotations:
    return enricher.document().page(text, limits=PageLimits(sentences=10, entities=10))


def passages(text: str, enricher: Enricher) -> list[str]:
    return [text[start:end] for start, end in annotations(text, enricher).sentences]


def test_a_language_without_lemmas_still_has_sentences_and_rules() -> None:
    any_language = Enricher("blank:xx")
    text = "Ann@X.org. Pay 5 dollars."
    assert passages(text, any_language) == ["Ann@X.org.", "Pay 5 dollars."]
    found = annotations(text, any_language).entities
    assert [entity.normal for entity in found] == ["ann@x.org", "5 dollars"]


def test_a_trained_model_gets_sentences_and_is_otherwise_unchanged(tmp_path: Path) -> None:
    model = spacy.blank("de")
    ruler = model.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "GPE", "pattern": "Ulm"}])  # type: ignore[attr-defined]  # add_pipe is typed as returning a callable
    model.to_disk(tmp_path / "model")

    loaded = Enricher(str(tmp_path / "model"))

    assert loaded.pipeline.lang == "de"
    found = annotations("Um Ulm. Um Ulm herum.", loaded).entities
    assert [(entity.label, entity.text) for entity in found] == [("GPE", "Ulm"), ("GPE", "Ulm")]
    assert passages("Um Ulm. Um Ulm herum.", loaded) == ["Um Ulm.", "Um Ulm herum."]


@pytest.mark.parametrize("name", ["no_such_model", "blank:klingon", "blank:"])
def test_the_error_names_a_missing_model(name: str) -> None:
    with pytest.raises(LanguageModelNotFound, match=repr(name)):
        language.load(name)
