from pathlib import Path

from pipeline.ingest.ocr import languages, tesseract

INSTALLED = frozenset({"eng", "deu", "jpn"})


def test_configured_data_that_are_not_installed_are_left_out() -> None:
    assert languages.configured(("fra", "deu", "eng"), installed=INSTALLED) == ("deu", "eng")


def test_a_document_is_recognised_in_the_language_of_its_pages_with_text() -> None:
    assert languages.of_document("de", installed=INSTALLED) == ("deu",)
    assert languages.of_document("fr", installed=INSTALLED) == ()
    assert languages.of_document(None, installed=INSTALLED) == ()


def test_a_script_is_recognised_with_the_first_installed_data() -> None:
    assert languages.of_script("Han", installed=INSTALLED) == ("jpn",)
    assert languages.of_script("Latin", installed=INSTALLED) == ()


def test_installed_data_are_the_files_of_the_directory(tmp_path: Path) -> None:
    for name in ("eng.traineddata", "osd.traineddata", "README"):
        (tmp_path / name).touch()

    assert tesseract.installed(tmp_path) == {"eng", "osd"}
    assert tesseract.installed(tmp_path / "missing") == frozenset()
