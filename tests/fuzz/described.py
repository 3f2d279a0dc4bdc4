"""Requests made from the API's own description, right ones and wrong ones."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dev.stack.checkout import PROGRAMS
from tests.fuzz.gateway import Fuzzed

NOT_PROMISED: Final = (
    # A cursor, a URL or a name can be of the right shape and still be of no use.
    "positive_data_acceptance",
    # A deleted upload is a cancelled one, which can still be looked at.
    "use_after_free",
)

EXCEPTIONS: Final = Path(__file__).with_name("schemathesis.toml")


def schemathesis(fuzzed: Fuzzed, *, phases: str, bounds: Sequence[str]) -> tuple[int, str]:
    """Try every operation of the description; return the exit code and the report."""
    done = subprocess.run(
        [
            *(str(PROGRAMS / "schemathesis"), "--config-file", str(EXCEPTIONS)),
            *("run", f"{fuzzed.url}/schema/openapi.json"),
            *("--header", f"Authorization: Bearer {fuzzed.key}"),
            *("--phases", phases, *bounds),
            *("--exclude-checks", ",".join(NOT_PROMISED)),
            # A stream of events ends when its job does, and no job here does.
            *("--exclude-path-regex", "/events$"),
            *("--request-timeout", "20"),
            *("--continue-on-failure", "--no-color", "--warnings", "off"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr
