"""Valid and invalid requests, generated from the OpenAPI description."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dev.stack.checkout import CHECKOUT, PROGRAMS
from tests.fuzz.gateway import Fuzzed

EXCLUDED_CHECKS: Final = (
    # A cursor, a URL or a name can match its schema and still be refused.
    "positive_data_acceptance",
    # A deleted upload is cancelled and stays readable.
    "use_after_free",
)

EXCEPTIONS: Final = Path(__file__).with_name("schemathesis.toml")


def schemathesis(fuzzed: Fuzzed, *, phases: str, bounds: Sequence[str]) -> tuple[int, str]:
    """Test every operation of the description; return the exit code and the report."""
    done = subprocess.run(
        [
            *(str(PROGRAMS / "schemathesis"), "--config-file", str(EXCEPTIONS)),
            *("run", f"{fuzzed.url}/schema/openapi.json"),
            *("--header", f"Authorization: Bearer {fuzzed.key}"),
            *("--phases", phases, *bounds),
            *("--exclude-checks", ",".join(EXCLUDED_CHECKS)),
            # A stream of events ends with its job, and no job ends here; that of a feed never ends.
            # The answer with a token of the feed has the URL of this stream, which is followed.
            *("--exclude-path-regex", "/jobs/[^/]+/events$|/events/stream(-token)?$"),
            *("--request-timeout", "20"),
            *("--continue-on-failure", "--no-color", "--warnings", "off"),
        ],
        check=False,
        capture_output=True,
        text=True,
        # The hooks are a module of the checkout.
        cwd=CHECKOUT,
    )
    return done.returncode, done.stdout + done.stderr
