import pytest

from pipeline.enrich.enricher import Enricher


@pytest.fixture(scope="session")
def english() -> Enricher:
    return Enricher("blank:en")
