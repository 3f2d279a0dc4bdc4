import pytest
from spacy.language import Language

from pipeline.ingest import enrich
from pipeline.ingest.sandbox.limits import ReadingLimits
from tests.factories.reading_limits import READING_LIMITS


@pytest.fixture(scope="session")
def english() -> Language:
    return enrich.load_language("blank:en")


@pytest.fixture
def limits() -> ReadingLimits:
    return READING_LIMITS
