# ruff: noqa: RUF001  # texts in other alphabets
import random
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.ingest.errors import DocumentCorrupt
from pipeline.ingest.extractors.plain_text import PlainTextExtractor
from schemas.outcomes import Outcome
from tests.factories.documents import Extracted, extract
from tests.factories.reading_limits import READING_LIMITS

GERMAN = "Die Prüfung hat ergeben, dass größere Beträge fällig wären. Grüße, Jürgen Müller"
FRENCH = "L'été dernier, nous avons déjà payé la facture. Où êtes-vous né ? Ça ira."
PORTUGUESE = "A fatura não foi paga. Atenção: é necessária a confirmação. João Conceição"
POLISH = "Umowa została zawarta między stronami. Płatność należy uregulować do końca miesiąca."
CZECH = "Smlouva byla uzavřena mezi stranami. Děkujeme a přejeme hezký den, žádné potíže."
TURKISH = "Bu sözleşme taraflar arasında imzalanmıştır. Ödeme ay sonuna kadar yapılacaktır."
HUNGARIAN = "A szerződést a felek aláírták. Köszönjük, őszinte üdvözlettel: Tűzoltó Szövetség"
RUSSIAN = "Настоящий договор заключён между сторонами о нижеследующем: заказчик обязуется платить."
GREEK = "Η παρούσα σύμβαση συνάπτεται μεταξύ των μερών. Η πληρωμή πραγματοποιείται."
HEBREW = "הסכם זה נערך ונחתם בין הצדדים ביום הראשון של החודש. התשלום יבוצע עד סוף החודש הנוכחי."
ARABIC = "تم إبرام هذا العقد بين الطرفين ويلتزم كل طرف بالشروط التالية. يتم الدفع قبل نهاية الشهر."
JAPANESE = (
    "本契約は、甲と乙の間で締結された業務委託に関する契約書であり、双方は以下の条項に同意する。"
)
CHINESE = "本合同由甲乙双方在平等自愿的基础上签订,双方应当遵守下列条款。付款应在每月月底之前完成。"
KOREAN = "본 계약은 갑과 을 사이에 체결된 업무 위탁에 관한 계약서이며, 쌍방은 다음 조항에 동의한다."


def read(
    tmp_path: Path, content: bytes | str, *, limits_of_text: int = READING_LIMITS.text_bytes
) -> Extracted:
    file = tmp_path / "text"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    limits = replace(READING_LIMITS, text_bytes=limits_of_text)
    return extract(PlainTextExtractor(), file, limits=limits)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "utf-8-sig"),
        (GERMAN, "utf-16"),
        (GERMAN, "utf-32"),
        (GERMAN, "utf-16-le"),
        (GERMAN, "utf-16-be"),
        (GERMAN, "windows-1252"),
        (GERMAN, "mac-roman"),
        (GERMAN, "cp850"),
        (FRENCH, "iso-8859-1"),
        (PORTUGUESE, "windows-1252"),
        (POLISH, "windows-1250"),
        (POLISH, "iso-8859-2"),
        (CZECH, "windows-1250"),
        (HUNGARIAN, "windows-1250"),
        (TURKISH, "windows-1254"),
        (RUSSIAN, "utf-8"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "windows-1251"),
        (RUSSIAN, "iso-8859-5"),
        (RUSSIAN, "cp866"),
        (GREEK, "iso-8859-7"),
        (HEBREW, "iso-8859-8"),
        (HEBREW, "windows-1255"),
        (ARABIC, "windows-1256"),
        (JAPANESE, "shift-jis"),
        (JAPANESE, "euc-jp"),
        (JAPANESE, "iso-2022-jp"),
        (CHINESE, "gb18030"),
        (KOREAN, "euc-kr"),
    ],
)
@pytest.mark.parametrize("repeats", [1, 400])
def test_the_encoding_is_detected(tmp_path: Path, text: str, encoding: str, repeats: int) -> None:
    lines = "\n".join([text] * repeats)

    pages = read(tmp_path, lines.encode(encoding)).pages

    assert "\n".join(page.text for page in pages) == lines


def test_a_few_foreign_letters_in_a_long_log_show_the_encoding(tmp_path: Path) -> None:
    log = "".join(f"2024-03-01 line {number} ok\n" for number in range(10_000))
    content = log.encode() + "Gerät für Größe nicht gefunden".encode("cp1252")

    assert read(tmp_path, content).pages[-1].text.endswith("Gerät für Größe nicht gefunden")


def test_a_broken_character_does_not_make_utf8_another_encoding(tmp_path: Path) -> None:
    found = read(tmp_path, GERMAN.encode() * 10 + b"\xff")

    assert GERMAN in found.text
    assert found.warnings == 1


def test_the_encoding_is_metadata(tmp_path: Path) -> None:
    metadata = read(tmp_path, GERMAN.encode("cp1252")).structure.metadata

    assert metadata.extra == {"encoding": "cp1252"}


@pytest.mark.parametrize(
    "content",
    [
        random.Random(1).randbytes(200),
        random.Random(2).randbytes(100_000),
        bytes(range(256)),
        b"\x00\x01\x02\x03",
        b"\x1f\x8b\x08\x00" + random.Random(3).randbytes(5_000),
    ],
    ids=["short", "long", "all bytes", "controls", "gzip"],
)
def test_binary_content_is_not_text(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DocumentCorrupt, match="not text"):
        read(tmp_path, content)


def test_zeros_that_a_power_failure_left_in_a_log_are_removed(tmp_path: Path) -> None:
    assert read(tmp_path, b"before\n" + bytes(4_096) + b"after\n").text == "before\nafter"


def test_sequences_that_control_a_terminal_are_removed(tmp_path: Path) -> None:
    content = "\x1b[1;31mERROR\x1b[0m disk \x1b]8;;https://example.org\x07full\x1b]8;;\x07"

    assert read(tmp_path, content).text == "ERROR disk full"


def test_line_ends_are_line_feeds(tmp_path: Path) -> None:
    assert read(tmp_path, "one\r\ntwo\rthree\n").text == "one\ntwo\nthree"


def test_pages_end_at_form_feeds(tmp_path: Path) -> None:
    pages = read(tmp_path, "one\n\f  two\n\f\fthree\f\n").pages

    assert [page.text for page in pages] == ["one", "  two", "", "three"]
    assert pages[2].outcome is Outcome.NO_TEXT


def test_pages_of_a_text_without_form_feeds_end_at_paragraphs(tmp_path: Path) -> None:
    paragraph = "\n".join(f"Line {number} of this paragraph." for number in range(20))

    pages = read(tmp_path, "\n\n".join([paragraph] * 50)).pages

    assert {page.text for page in pages} <= {"\n\n".join([paragraph] * n) for n in range(1, 8)}
    assert all(2_000 <= len(page.text) <= 4_000 for page in pages[:-1])


@pytest.mark.parametrize("separator", ["\n", ". ", " ", ""])
def test_pages_keep_every_word(tmp_path: Path, separator: str) -> None:
    text = separator.join(f"word{number}" for number in range(20_000))

    pages = read(tmp_path, text).pages

    assert all(len(page.text) <= 4_000 for page in pages)
    assert "".join("".join(page.text.split()) for page in pages) == "".join(text.split())


def test_white_space_alone_is_a_page_without_text(tmp_path: Path) -> None:
    (page,) = read(tmp_path, " \n\t\n").pages

    assert (page.text, page.outcome) == ("", Outcome.NO_TEXT)


def test_text_beyond_the_limit_is_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, JAPANESE * 1_000, limits_of_text=10_000)

    assert sum(len(page.text) for page in found.pages) == 10_000 // 3
    assert [page.outcome for page in found.pages] == [Outcome.LIMIT_TEXT]
    assert found.pages[-1].reason == "Only the first 10000 bytes are read."


def test_pages_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    found = read(tmp_path, "\f".join(["page"] * 500))

    assert found.page_count == 500
    assert len(found.pages) == READING_LIMITS.pages
