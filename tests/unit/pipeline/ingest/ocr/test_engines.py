from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.ingest.ocr import engines
from pipeline.ingest.ocr.engines import Choice, NoEngine
from pipeline.settings import Settings
from schemas.settings import OcrEngineName
from tests.factories.secret_keys import KEY


def settings(data: Path, **changed: object) -> Settings:
    return Settings.model_validate(
        {
            "database_url": SecretStr("postgresql+psycopg://nobody@127.0.0.1/none"),
            "rabbitmq_url": SecretStr("amqp://nobody@127.0.0.1/none"),
            "secret_keys": SecretStr(KEY),
            "s3_bucket": "none",
            "s3_access_key_id": SecretStr("none"),
            "s3_secret_access_key": SecretStr("none"),
            "staging_dir": Path("none"),
            "tessdata_dir": data,
            "ocr_engine": OcrEngineName.TESSERACT,
        }
        | changed
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("deu", "eng", "osd"):
        (tmp_path / f"{name}.traineddata").touch()
    return tmp_path


def test_tesseract_is_chosen_with_the_configured_data_that_are_installed(data: Path) -> None:
    choice = engines.choose(settings(data, ocr_languages="fra, eng"))

    assert choice == Choice(
        name=OcrEngineName.TESSERACT, languages=("eng",), detail="tesseract with deu, eng, osd"
    )


def test_a_worker_without_data_has_no_engine_and_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(NoEngine, match="has no language data eng of Tesseract"):
        engines.choose(settings(tmp_path))


def test_none_is_no_engine(data: Path) -> None:
    with pytest.raises(NoEngine, match="OCR_ENGINE is none"):
        engines.choose(settings(data, ocr_engine="none"))
