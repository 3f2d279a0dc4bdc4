import pytest

from pipeline.enrich.enricher import Enricher


@pytest.fixture(scope="session")
def enricher() -> Enricher:
    return Enricher("blank:en")
