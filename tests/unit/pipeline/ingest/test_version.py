from datetime import timedelta

from pipeline.ingest.version import pipeline_version
from schemas.settings import IngestSettings, PdfEngine


def test_a_setting_that_changes_the_result_changes_the_version() -> None:
    default = pipeline_version(IngestSettings())
    assert pipeline_version(IngestSettings()) == default
    assert pipeline_version(IngestSettings(pdf_engine=PdfEngine.PYPDF)) != default
    assert pipeline_version(IngestSettings(spacy_model="blank:de")) != default


def test_a_setting_that_changes_only_the_time_keeps_the_version() -> None:
    slow = IngestSettings(read_cpu_share=timedelta(seconds=1), reader_documents_max=1)
    assert pipeline_version(slow) == pipeline_version(IngestSettings())
