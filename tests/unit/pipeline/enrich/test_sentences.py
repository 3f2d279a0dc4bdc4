import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.enrich import languages
from pipeline.enrich.sentences import FRAGMENT_MAX, SENTENCE_MAX, WALL, sentences


def split(text: str, language: str = "en") -> list[str]:
    found = sentences(text, rules=languages.rules(language))
    return [text[start:end] for start, end in found]


def test_sentences_have_no_surrounding_white_space() -> None:
    text = "  The first sentence.\n\nAnd a second\none!  \n"
    assert split(text) == ["The first sentence.", "And a second\none!"]


@pytest.mark.parametrize("text", ["", " \n ", "\n", WALL * 3])
def test_a_blank_text_has_no_sentences(text: str) -> None:
    assert split(text) == []


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "Send it to Apt. no. 5 of the house."),
        ("en", "He lives in Cdad. Aut. Bs. As. since May."),
        ("en", "See Fig. 3 and J. Smith et al. in Sec. II of the text."),
        ("en", "Mr. Smith, e.g. today, met Dr. Lee of the U.S. Navy."),
        ("en", "It costs 3.14 at www.example.org or more."),
        ("en", '"Wait!" he said.'),
        ("de", "Er kam am 3. Mai wegen Nr. 5 zu Dr. Müller."),
        ("de", "Das ist z. B. im 19. Jahrhundert oder ca. 1820 n. Chr. geschehen."),
        ("es", "El Sr. García vive en la Avda. Rivadavia núm. 5 desde ayer."),
        ("fr", "M. Dupont habite au n. 5, av. Foch, depuis janv. 2013 environ."),
        ("ar", "شكرا لك د. محمد على كل شيء."),
        ("ja", "「はい。」と彼は言った。"),
    ],
)
def test_a_full_stop_inside_a_sentence_does_not_end_it(language: str, sentence: str) -> None:
    assert split(sentence, language) == [sentence]


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        ("en", "I said no. He went.", ["I said no.", "He went."]),
        ("en", "It took 5 ms. The rest took 7.", ["It took 5 ms.", "The rest took 7."]),
        ("en", "It is known.12 The others left.", ["It is known.12", "The others left."]),
        ("en", "Pears, apples etc. Next comes fish.", ["Pears, apples etc.", "Next comes fish."]),
        ("de", "Es war Nr. 5. Danach ging er.", ["Es war Nr. 5.", "Danach ging er."]),
        ("es", "¡Hola, Ana! ¿Qué hora es?", ["¡Hola, Ana!", "¿Qué hora es?"]),
        (
            "ja",
            "今日は天気です。明日は雨でしょうか？",
            ["今日は天気です。", "明日は雨でしょうか？"],
        ),
        ("ar", "كيف حالك؟ أنا بخير.", ["كيف حالك؟", "أنا بخير."]),
        ("he", "שלום עולם. מה שלומך היום?", ["שלום עולם.", "מה שלומך היום?"]),
        ("hi", "यह पहला वाक्य है। यह दूसरा है।", ["यह पहला वाक्य है।", "यह दूसरा है।"]),
        ("el", "Πού είναι; Δεν ξέρω ακόμα.", ["Πού είναι;", "Δεν ξέρω ακόμα."]),
    ],
)
def test_sentences_end_by_the_rules_of_their_language(
    language: str, text: str, found: list[str]
) -> None:
    assert split(text, language) == found


def test_title_authors_and_affiliations_are_not_one_sentence() -> None:
    text = (
        "A Study of Rivers and Their Mouths\nJane Doe and John Smith\nUniversity of Ulm\n"
        "Department of Geography, Ulm\nAbstract\n"
        "Rivers carry sand from the mountains to the sea, and most of what they carry never\n"
        "reaches it. We measured how much of it stays behind in the last ten kilometres."
    )
    assert split(text) == [
        "A Study of Rivers and Their Mouths",
        "Jane Doe and John Smith",
        "University of Ulm",
        "Department of Geography, Ulm",
        "Abstract",
        (
            "Rivers carry sand from the mountains to the sea, and most of what they carry never\n"
            "reaches it."
        ),
        "We measured how much of it stays behind in the last ten kilometres.",
    ]


def test_a_line_that_leaves_room_for_the_next_word_ends_a_sentence() -> None:
    text = (
        "Terms of payment\nThe invoice is due within thirty days of its receipt, and without any\n"
        "deduction for the costs of the transfer."
    )
    assert split(text)[0] == "Terms of payment"


def test_items_of_a_list_are_sentences() -> None:
    text = "We need the following goods\n• twenty pears\n• thirty apples\n3) a very large box"
    assert split(text) == [
        "We need the following goods",
        "• twenty pears",
        "• thirty apples",
        "3) a very large box",
    ]


def test_a_line_that_goes_on_in_lower_case_does_not_end_a_sentence() -> None:
    assert split("where the\nvalue of the whole\nis 5") == ["where the\nvalue of the whole\nis 5"]


def test_a_fragment_becomes_part_of_its_neighbour() -> None:
    assert split("1. Introduction to it\n\nOf rivers. Yes.\n\n12\n\nTotal amount") == [
        "1. Introduction to it",
        "Of rivers. Yes.",
        "12\n\nTotal amount",
    ]


def test_a_text_of_one_fragment_has_no_sentence() -> None:
    assert split("17") == []


def test_a_sentence_does_not_go_on_behind_a_wall() -> None:
    text = f"1\n{WALL * 6}\nThe text goes on{WALL * 3}here and there"
    assert split(text) == ["The text goes on", "here and there"]


def test_a_sentence_without_an_end_is_split_at_white_space() -> None:
    found = split("word " * 1_000)
    assert all(len(each) <= SENTENCE_MAX for each in found)
    assert " ".join(found).split() == ["word"] * 1_000


@example("111\n\f1", "en")
@given(st.text("aB1. \n!。•,\f", max_size=300), st.sampled_from(["en", "de", "ja", "xx", "el"]))
def test_sentences_are_ordered_bounded_and_no_fragments(text: str, language: str) -> None:
    position = 0
    for start, end in sentences(text, rules=languages.rules(language)):
        assert position <= start < end <= len(text)
        assert FRAGMENT_MAX < end - start <= SENTENCE_MAX
        assert text[start:end] == text[start:end].strip()
        assert WALL not in text[start:end]
        position = end


@pytest.mark.parametrize(
    "text",
    [
        *("'" * 40_000, "a" * 2_000_000, "1" * 100_000, "?" * 100_000, ". " * 50_000),
        *("a\n" * 50_000, "A. " * 50_000, '."' * 50_000, "\f" * 100_000, "1. " * 50_000),
    ],
    ids=lambda text: repr(text[:3]),
)
@pytest.mark.timeout(20)
def test_hostile_text_takes_time_in_proportion_to_its_length(text: str) -> None:
    assert all(len(each) <= SENTENCE_MAX for each in split(text))
