"""Limits of reading a PDF: smaller than in production, so that a test reaches them quickly."""

from datetime import timedelta
from typing import Final

from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.settings import MIB

READING_LIMITS: Final = ReadingLimits(
    timeout=timedelta(seconds=30),
    page_timeout=timedelta(seconds=15),
    memory_bytes=256 * MIB,
    file_bytes=64 * MIB,
    pages=100,
    text_bytes=4 * MIB,
    page_characters=200_000,
)
