"""In a network where every forbidden target exists, none of them gets a connection."""

import json
import subprocess
import sys

import pytest

from tests import namespaces
from tests.integration.http import namespace_program
from tests.integration.http.namespace_program import REBINDINGS
from tests.namespaces import PUBLIC
from tests.webhook_urls import NOT_PUBLIC


def test_no_forbidden_target_gets_a_connection() -> None:
    if (reason := namespaces.unavailable()) is not None:
        pytest.skip(reason)
    program = [sys.executable, "-m", namespace_program.__name__]
    finished = subprocess.run(
        [*namespaces.COMMAND, *program], check=False, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    # Most exist: the kernel refuses multicast addresses and some others.
    assert report["added"] > len(NOT_PUBLIC) / 2
    assert report["accepted"].keys() == {PUBLIC}
    assert report["accepted"][PUBLIC] == report["outcomes"]["delivered"] > REBINDINGS / 2
    assert report["outcomes"].keys() == {"delivered", "target_refused"}
