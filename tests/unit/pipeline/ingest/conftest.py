import pytest

from pipeline.ingest.sandbox.limits import ReadingLimits
from tests.factories.reading_limits import READING_LIMITS


@pytest.fixture
def limits() -> ReadingLimits:
    return READING_LIMITS
