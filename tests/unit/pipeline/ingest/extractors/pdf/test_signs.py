import pytest

from pipeline.ingest.extractors.pdf import signs
from pipeline.ingest.extractors.pdf.signs import Sign, Signs


def signs_of(text: str, *, doubted: str = "") -> Signs:
    return signs.signs_of(text, raw=text, doubted=doubted)


def readable(text: str) -> float:
    return signs.readable(text, raw=text)


TEXTS = {
    "English": (
        "The committee met on Tuesday and agreed on the budget for the coming year. Its members "
        "asked for a report about the schools of the district, which is due in the autumn."
    ),
    "German": "Die Straßenverkehrsordnung schreibt Geschwindigkeitsbegrenzungen vor; Nachtflüge fehlen.",
    "Polish": "Wszystkie strony zgodnie stwierdzają, że przyszły rok będzie trudniejszy niż obecny.",
    "Finnish": "Hallituksen esityksessä ehdotetaan muutettavaksi lakia kansaneläkelaitoksesta.",
    "Czech": "Prvního čtvrtletí příštího roku skončí lhůta, kterou vláda stanovila předpisem.",
    "Russian": "Комитет собрался во вторник и согласовал бюджет на следующий год.",
    "Japanese": "マーケットモデルは二次元で説明する。取引できない商品がマクロ経済変数である。",
    "Hebrew": "תוצר מקומי גולמי ומספר הנפשות במדינה לפי שנה",
    "numbers": "1 245,30 17.03.2024 12 % 300 4 500,00 99 17:45 3,14159 2024-05-01 0,1 12 13 14",
    "abbreviations": "EUR kg " * 40,
    "placeholders": "aaa aaa aaa (FBL) " * 20,
    "a page of scanned dots": ":., dP . . i, . .. ? .i ' 14 e. : .. rP . Nsr ki ., LIL k 1111101",
    "a list of files": "see /usr/lib/a1/b2 and 3/4 of 12/2024, A/B, and/or km/h",
    "a date in a form": "SAV CERT - 4/12/2024",
    "bullets": "\uf0b7 the first point of the list\n\uf0b7 the second point of the list\n" * 4,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_ordinary_text_has_no_sign(text: str) -> None:
    found = signs_of(text)
    assert found.found == frozenset()
    assert not found.is_garbage


@pytest.mark.parametrize("shift", [-31, -29, -3, -1, 1, 3, 29])
@pytest.mark.parametrize("language", ["English", "German"])
def test_a_shifted_alphabet_is_garbage(language: str, shift: int) -> None:
    text = "".join(chr(max(32, ord(each) + shift)) for each in TEXTS[language] * 3)
    assert signs_of(text).is_garbage


def test_a_table_in_a_font_without_a_map_is_garbage() -> None:
    table = "9nhmmmimm02vxS0/TxV2tORR2SPON32NTSMxTwh/0V/ROR n9hnnnimp02vxS0/TxV2tORR2 " * 3
    assert signs_of(table).is_garbage


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("/g18/g152/g3/g4 " * 10, id="numbered glyphs"),
        pytest.param("/C50\n/C72/C6f\n/C70\n/C65\n/C72\n/C74\n/C79", id="codes as names"),
        pytest.param("/BT /D5/D9/CP/D2/D8/CX/D0/CT/B9", id="codes as letters"),
        pytest.param("(cid:12)(cid:7)(cid:101)", id="character ids"),
        pytest.param("\x01\x02\x03 \x04\x05", id="control characters"),
        pytest.param("\ue001\ue002 \uf041\uf042", id="private characters"),
        pytest.param("\ufffd\ufffd \ufffd", id="replacement characters"),
        pytest.param("\u0378\u0380\u0381\u038b \u038d", id="unassigned characters"),
    ],
)
def test_characters_without_a_meaning_are_garbage(text: str) -> None:
    found = signs_of(text)
    assert Sign.UNMAPPED in found.found
    assert found.is_garbage
    assert readable(text) == 0


def test_a_few_unmapped_characters_ask_for_another_opinion_and_are_no_garbage() -> None:
    found = signs_of(TEXTS["English"] + "\x12\x13" * 4)
    assert found.found == {Sign.UNMAPPED}
    assert not found.is_garbage


def test_codes_that_form_words_are_the_right_characters() -> None:
    found = signs_of("Property Insurance", doubted="Property Insurance")
    assert found.found == {Sign.UNMAPPED}
    assert (found.unmapped, found.is_garbage) == (0, False)


@pytest.mark.parametrize("doubted", ["7KLV LV", "ϲΒϴΒ", "kW"])
def test_codes_that_form_no_words_are_unmapped(doubted: str) -> None:
    assert signs_of(doubted, doubted=doubted).is_garbage


def test_words_without_spaces_are_a_sign() -> None:
    text = "EntertheamountyouarepayingaboveRegisteredOffice:23MainStreet,CentralCity"
    assert signs_of(text).found == {Sign.SPACES_LOST}


def test_letters_spaced_apart_are_a_sign() -> None:
    text = "N a m e : A L E N A Z I , H A L I M A D a t e o f B i r t h : 1 1 / 1 7 G e n d e r : F"
    assert signs_of(text).found == {Sign.LETTERS_APART}


def test_the_text_with_spaces_is_the_better_one() -> None:
    text = TEXTS["English"]
    assert readable(text) > readable(text.replace(" ", ""))
    assert readable(text) > readable(" ".join(text))


def test_a_text_printed_several_times_is_not_a_longer_one() -> None:
    assert readable("TTTTeeeesssstttt") == readable("Test")


def test_an_empty_text_has_no_sign() -> None:
    found = signs_of(" \n")
    assert (found.characters, found.found, found.is_garbage) == (0, frozenset(), False)


def test_spaces_that_cleaning_restores_are_no_sign() -> None:
    raw = "N a m e : A L E N A Z I , H A L I M A D a t e o f B i r t h : 1 1 / 1 7 G e n d e r : F"
    assert signs.signs_of("Name: ALENAZI, HALIMA", raw=raw).found == frozenset()


def test_characters_that_cleaning_removes_are_a_sign() -> None:
    assert Sign.UNMAPPED in signs.signs_of("abc", raw="a\x03b\x03c\x03").found
