"""A worker that cannot prepare its work ends, instead of taking tasks that it cannot do."""

import pytest

from dev.stack.errors import CommandFailed
from tests.integration.pipeline.workbench import Workbench


@pytest.mark.parametrize(
    ("queue", "settings", "named"),
    [
        ("document_processing", {"SPACY_MODEL": "no_such_model"}, "no_such_model"),
        ("no_such_queue", {}, "no_such_queue"),
    ],
)
def test_a_worker_that_cannot_start_ends_and_says_why(
    bench: Workbench, queue: str, settings: dict[str, str], named: str
) -> None:
    with pytest.raises(CommandFailed, match=f"pipeline: .*{named}"):
        bench.system.run(["waybill-worker", "--queues", queue], settings=settings)
