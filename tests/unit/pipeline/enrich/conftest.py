import pytest
from spacy.language import Language

from pipeline.enrich import language


@pytest.fixture(scope="session")
def english() -> Language:
    return language.load("blank:en")
