from datetime import timedelta

from pipeline.ingest.version import pipeline_version
from schemas.settings import IngestSettings, OcrSettings, PassageSettings, PdfEngine


def version(
    settings: IngestSettings,
    *,
    ocr: OcrSettings | None = None,
    passages: PassageSettings | None = None,
) -> str:
    return pipeline_version(
        settings, ocr=ocr or OcrSettings(), passages=passages or PassageSettings()
    )


def test_a_setting_that_changes_the_result_changes_the_version() -> None:
    default = version(IngestSettings())
    assert version(IngestSettings()) == default
    assert version(IngestSettings(pdf_engine=PdfEngine.PYPDF)) != default
    assert version(IngestSettings(spacy_model="blank:de")) != default
    assert version(IngestSettings(), ocr=OcrSettings(ocr_languages=("deu",))) != default
    assert version(IngestSettings(), passages=PassageSettings(passage_tokens=100)) != default


def test_a_setting_that_changes_only_the_time_keeps_the_version() -> None:
    slow = IngestSettings(read_cpu_share=timedelta(seconds=1), reader_documents_max=1)
    assert version(slow) == version(IngestSettings())
