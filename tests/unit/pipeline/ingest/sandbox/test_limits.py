from datetime import timedelta

from pipeline.ingest.sandbox.limits import ReadingLimits, cpu_share
from schemas.settings import IngestSettings


def test_the_limits_come_from_the_settings() -> None:
    settings = IngestSettings(pdf_timeout=timedelta(seconds=40), pdf_pages_max=7)
    limits = ReadingLimits.from_settings(settings)
    assert limits.timeout == timedelta(seconds=40)
    assert limits.pages == 7
    assert limits.memory_bytes == settings.pdf_memory_max
    assert limits.text_bytes == settings.pdf_text_max
    assert limits.file_bytes == settings.pdf_file_max


def test_the_page_timeout_is_a_quarter_of_the_timeout_up_to_a_maximum() -> None:
    short = ReadingLimits.from_settings(IngestSettings(pdf_timeout=timedelta(seconds=8)))
    long = ReadingLimits.from_settings(IngestSettings(pdf_timeout=timedelta(hours=1)))
    assert short.page_timeout == timedelta(seconds=2)
    assert long.page_timeout < timedelta(minutes=1)


def test_the_share_of_cpu_time_grows_with_the_file_up_to_a_maximum() -> None:
    longest = timedelta(seconds=10)
    assert cpu_share(2_000, longest=longest) < timedelta(seconds=1.1)
    assert cpu_share(300_000, longest=longest) == timedelta(seconds=4)
    assert cpu_share(100_000_000, longest=longest) == longest
    assert cpu_share(100_000_000, longest=timedelta(seconds=0.5)) == timedelta(seconds=0.5)
