"""The systems of the end-to-end tests, used for minutes instead of seconds."""

# Imported fixtures are available here.
from tests.e2e.conftest import (  # noqa: F401  # fixtures
    broker_process,
    broker_proxy,
    bucket_staging_system,
    delivering,
    deployment,
    forgetful_deployment,
    forgetful_system,
    reading_deployment,
    shared_store_proxy,
    store_proxy,
    system,
)
from tests.e2e.malware import scanning_system, submitter  # noqa: F401  # fixtures
from tests.fuzz.conftest import fuzzed  # noqa: F401  # a fixture
from tests.integration.pipeline.killed_exports import exporting, exports  # noqa: F401  # fixtures
