"""The systems of the end-to-end tests, for hours instead of seconds."""

# Fixtures: to name them here is to have them.
from tests.e2e.conftest import diskless, scene, store, system, watched_store  # noqa: F401
from tests.fuzz.conftest import fuzzed  # noqa: F401
