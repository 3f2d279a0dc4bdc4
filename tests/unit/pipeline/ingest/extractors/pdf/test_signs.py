# ruff: noqa: RUF001  # the letters that engines confuse are the matter here
import pytest

from pipeline.ingest.extractors.pdf import signs
from pipeline.ingest.extractors.pdf.signs import Sign, Signs


def signs_of(text: str, *, doubted: str = "") -> Signs:
    return signs.signs_of(text, raw=text, doubted=doubted)


def quality(text: str) -> float:
    return signs_of(text).quality


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
    "Greek in Japanese": "α線とβ線は放射線である。μ粒子も同様に扱う。" * 4,
    "languages by name": "English français 日本語 العربية हिन्दी ไทย русский עברית 한국어 Ελληνικά",
    "letters beyond the basic plane": "𝑎2 + 𝑏2 = 𝑐2 🌴🐢 𠮟る",
    "letters in two units": "\ud835\udc4e2 + \ud835\udc4f2 = \ud835\udc502",
    "small capitals": "\uf76f\uf770\uf765\uf76e magazine",
    "divided words": "Ein Wort, das ge\ufffeteilt ist, und noch eines, das ge\ufffeteilt ist",
    "single accented letters": "à À â Â ä Ä ç Ç é É è È ê Ê ë Ë î Î ï Ï ô Ô ù Ù û Û ü Ü",
    "Icelandic letters": "ðöéáþæíúý",
    "a divided short word": "hel\ufffelo\r\nhel\ufffeLo",
    "bullets": "\uf0b7 the first point of the list\n\uf0b7 the second point of the list\n" * 4,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_ordinary_text_has_no_sign(text: str) -> None:
    found = signs_of(text)
    assert found.found == frozenset()
    assert not found.is_garbage


def test_the_sample_of_a_font_is_no_garbage() -> None:
    text = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 "
    assert not signs_of(text * 4).is_garbage


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
        pytest.param("´¿¢Ã°£¢ ¿ðº˜ ´’«¢¬", id="symbols of another encoding"),
        pytest.param("È« ÊÀ ½ç ÎÞ ²ú Õß £¬ Áª ºÏ Æð À´", id="bytes of Chinese"),
        pytest.param("\u0378\u0380\u0381\u038b \u038d", id="unassigned characters"),
    ],
)
def test_characters_without_a_meaning_are_garbage(text: str) -> None:
    found = signs_of(text)
    assert Sign.UNMAPPED in found.found
    assert found.is_garbage
    assert found.quality == 0


def test_a_few_unmapped_characters_ask_for_another_opinion_and_are_no_garbage() -> None:
    found = signs_of(TEXTS["English"] + "\x12\x13" * 4)
    assert found.found == {Sign.UNMAPPED}
    assert not found.is_garbage


def test_codes_that_form_words_are_the_right_characters() -> None:
    found = signs_of("Property Insurance", doubted="Property Insurance")
    assert found.found == {Sign.UNMAPPED}
    assert (found.garbage, found.is_garbage) == (0, False)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("̽ଋҨ ǥ ƹ̽ୡȥ ဎഁୡࣧҨ ဌʾ ဎಱ̽ೌ¢ ܆ȥ¢ ਮΝ੧ ͱʸ¢ ͢ฏʤҨ", id="glyph numbers of many scripts"),
        pytest.param("ɍɝɥɨɜɚɹ ɲɥɢɮɨɜɚɥɶɧɚɹ ɦɚɲɢɧɚ", id="Cyrillic shifted to phonetic letters"),
    ],
)
def test_letters_of_many_scripts_in_one_word_are_garbage(text: str) -> None:
    assert signs_of(text).is_garbage


@pytest.mark.parametrize(
    "doubted", ["の削除・インストールについて", "这是一个测试", "우리말 시험 문제"]
)
def test_codes_that_are_east_asian_characters_are_the_right_ones(doubted: str) -> None:
    assert not signs_of(doubted, doubted=doubted).is_garbage


@pytest.mark.parametrize("doubted", ["2013", "1.245,30", "12/05/2024", "(1,450.00)"])
def test_codes_that_are_numbers_are_the_right_characters(doubted: str) -> None:
    assert not signs_of(doubted, doubted=doubted).is_garbage


@pytest.mark.parametrize(
    "doubted", ["'(6&5,37,21", "7KLV LV", "ϲΒϴΒ", "kW", "킜킰톁톁킰 킜킰톁톈톂킰킱"]
)
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
    assert quality(text) > quality(text.replace(" ", ""))
    assert quality(text) > quality(" ".join(text))


def test_a_text_printed_several_times_is_reduced() -> None:
    assert signs.once("TTTTeeeesssstttt off 1000") == "Test off 10"


@pytest.mark.parametrize("text", ["", " \n", "\t\t", "\u00a0\r\n"])
def test_an_empty_text_has_no_sign(text: str) -> None:
    found = signs_of(text)
    assert (found.characters, found.found, found.is_garbage) == (0, frozenset(), False)


def test_spaces_that_cleaning_restores_are_no_sign() -> None:
    raw = "N a m e : A L E N A Z I , H A L I M A D a t e o f B i r t h : 1 1 / 1 7 G e n d e r : F"
    assert signs.signs_of("Name: ALENAZI, HALIMA", raw=raw).found == frozenset()


def test_characters_that_cleaning_removes_are_a_sign() -> None:
    assert Sign.UNMAPPED in signs.signs_of("abc", raw="a\x03b\x03c\x03").found


def test_a_text_without_a_third_of_its_characters_is_incomplete_and_no_garbage() -> None:
    found = signs_of("OA OB OC \uf02b \uf02b \uf03d \uf02b")
    assert (found.missing, found.is_incomplete, found.is_garbage) == (4, True, False)


def test_a_control_character_between_words_is_a_space() -> None:
    raw = "Overview\x02of\x02the\x02Technology\x02Acceptance\x02Model\r\n"
    assert signs.with_spaces(raw) == "Overview of the Technology Acceptance Model\r\n"


@pytest.mark.parametrize(
    "raw", ["a sum\x12\x13 of two\x12 terms", "\x02\x02\x02\x02", "stu\x1f", "words"]
)
def test_other_control_characters_stay(raw: str) -> None:
    assert signs.with_spaces(raw) == raw


def test_certainly_wrong_characters_are_taken_out_at_their_places() -> None:
    raw = "Figure 3\r\n7KLV LV D VHQWHQFH RI OHWWHUV"
    doubted = " " * 10 + "7KLV LV D VHQWHQFH RI OHWWHUV"
    left = signs.without_noise(raw, doubted=doubted)
    assert len(left) == len(raw)
    assert left.replace("\0", "").split() == ["Figure", "3"]


@pytest.mark.parametrize("doubted", ["the right words, in codes", "k R 0", "2013"])
def test_characters_that_may_be_right_stay(doubted: str) -> None:
    assert signs.without_noise(doubted, doubted=doubted) == doubted
