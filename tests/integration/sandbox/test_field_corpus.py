"""Real files that were misread once; they are not part of the project, see `--field-corpus`."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.ingest.extractors.pdf.document import PdfExtractor
from tests.factories.reading_limits import READING_LIMITS

ALLOWED_WITHOUT_TEXT = "typed, within deadline"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    directory: Path | None = metafunc.config.getoption("--field-corpus")
    entries = json.loads((directory / "index.json").read_bytes()) if directory else []
    metafunc.parametrize(
        ("path", "entry"),
        [pytest.param(directory / entry["file"], entry, id=entry["file"]) for entry in entries],
    )


def test_a_file_from_the_field_yields_its_text(path: Path, entry: dict[str, Any]) -> None:
    with PdfExtractor().open(path, limits=READING_LIMITS, password=None) as document:
        pages = [document.page(number) for number in range(1, document.page_count + 1)]
    text = " ".join(" ".join(page.text for page in pages).split())
    assert [words for words in entry["must_contain"] if words not in text] == []
    said = " ".join([text, *(page.reason for page in pages)])
    assert [words for words in entry["must_not_contain"] if words in said] == []
    if entry["expect"] != ALLOWED_WITHOUT_TEXT:
        assert text
