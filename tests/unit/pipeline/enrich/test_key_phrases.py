import pytest

from pipeline.enrich import languages
from pipeline.enrich.key_phrases import KeyPhrases


def best(text: str, language: str = "en") -> tuple[str, ...]:
    phrases = KeyPhrases()
    phrases.add(text, rules=languages.rules(language))
    return phrases.best()


def test_frequent_phrases_between_stop_words_come_first() -> None:
    text = (
        "The water level of the river was measured. A high water level is rare. "
        "The water level and the river are one. Fish live in the river."
    )
    assert best(text)[:2] == ("water level", "river")


def test_stop_words_are_those_of_the_language() -> None:
    text = "Der Vertrag und die Rechnung. Der Vertrag oder die Rechnung. Die Rechnung."
    assert best(text, "de") == ("Rechnung", "Vertrag")


def test_a_part_of_a_longer_phrase_is_no_phrase_of_its_own() -> None:
    assert best("The neural network. A neural network. The network.") == ("neural network",)


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        (
            "ja",
            "機械学習の手法。データと機械学習。データ。機械学習。",
            ("機械学習", "データ", "手法"),
        ),
        ("zh", "机器学习的方法。在机器学习中。机器学习。", ("机器学习", "方法")),
    ],
)
def test_phrases_are_found_in_scripts_without_spaces(
    language: str, text: str, found: tuple[str, ...]
) -> None:
    assert best(text, language) == found


@pytest.mark.parametrize("text", ["", "12 34 5.6", "the of and", "A1 B2 xx@x.org"])
def test_numbers_and_stop_words_are_no_phrases(text: str) -> None:
    assert best(text) == ()


def test_a_document_has_at_most_ten() -> None:
    names = "alpha. beta. gamma. delta. epsilon. zeta. theta. iota. kappa. lambda. sigma. omega"
    assert len(best(names)) == 10


def test_frequent_phrases_survive_many_others() -> None:
    phrases = KeyPhrases()
    rules = languages.rules("en")
    for page in range(20):
        rare = ". ".join(
            f"{chr(97 + page)}{'abcdefghij'[n % 10]}{chr(97 + n // 10 % 26)}word{chr(97 + n // 260)}"
            for n in range(900)
        )
        phrases.add(f"The water level. {rare}", rules=rules)
    assert phrases.best()[0] == "water level"
    assert len(phrases.most_frequent()) <= 300
