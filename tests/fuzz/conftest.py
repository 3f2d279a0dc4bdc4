from collections.abc import Iterator

import pytest

from dev.stack.stack import Stack
from tests.fuzz import gateway
from tests.fuzz.gateway import Fuzzed


@pytest.fixture(scope="session")
def fuzzed(infrastructure: Stack, migrated_template: str) -> Iterator[Fuzzed]:
    with gateway.started(infrastructure, template=migrated_template) as fuzzed:
        yield fuzzed
