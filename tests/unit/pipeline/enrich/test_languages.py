import pytest

from pipeline.enrich import languages


@pytest.mark.parametrize(
    ("code", "word"), [("en", "the"), ("de", "und"), ("fr", "les"), ("no", "ikke")]
)
def test_a_language_has_the_stop_words_of_spacy(code: str, word: str) -> None:
    assert word in languages.rules(code).stop_words


def test_a_language_without_data_has_the_rules_of_any_language() -> None:
    rules = languages.rules("zz")
    assert rules.stop_words == frozenset()
    assert "dr" in rules.abbreviations
    assert rules.months["januar"] == rules.months["january"] == 1


@pytest.mark.parametrize("code", ["", "klingon", "../en", "en/.."])
def test_only_languages_of_spacy_are_known(code: str) -> None:
    assert languages.is_known("de")
    assert not languages.is_known(code)
