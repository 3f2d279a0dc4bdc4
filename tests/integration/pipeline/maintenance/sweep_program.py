"""Runs the sweep of old rows once, with small batches, in a process that a test kills.

Prints a line when it begins.
"""

import sys

from pipeline.context import build_context, install_context
from pipeline.ingest.extractors import registry
from pipeline.maintenance import documents, jobs, removal
from pipeline.maintenance.tasks import SweepRows
from pipeline.settings import Settings


def main() -> None:
    jobs.BATCH, documents.BATCH, removal.ROWS = 2, 2, 2  # type: ignore[misc]  # more places to be killed at
    install_context(build_context(Settings.load(), will_be_read=registry.will_be_read))
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    SweepRows().run()


if __name__ == "__main__":
    main()
