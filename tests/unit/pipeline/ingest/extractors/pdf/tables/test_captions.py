import pytest

from pipeline.ingest.extractors.pdf.tables.captions import is_named


@pytest.mark.parametrize(
    "line", ["Table 3: Prices", "TABLE IV", "Tabelle 2", "Figure A1: Growth", "Fig. 7", "Annex II"]
)
def test_a_name_with_a_number_begins_a_caption(line: str) -> None:
    assert is_named(line)


@pytest.mark.parametrize(
    "line", ["Tablecloths 3", "Table of contents", "Chartered accountants", "Graphics", "3 tables"]
)
def test_other_words_begin_no_caption(line: str) -> None:
    assert not is_named(line)
