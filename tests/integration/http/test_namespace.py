"""In a network where every forbidden target exists, none of them gets a connection."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.integration.http import namespace_program
from tests.integration.http.namespace_program import PUBLIC, REBINDINGS
from tests.webhook_urls import NOT_PUBLIC


def test_no_forbidden_target_gets_a_connection() -> None:
    if shutil.which("ip") is None:
        pytest.skip("there is no program `ip`")
    namespace = ["unshare", "--net", "--map-root-user"]
    permitted = subprocess.run([*namespace, "true"], check=False, capture_output=True, text=True)
    if permitted.returncode:
        pytest.skip(f"network namespaces are not permitted: {permitted.stderr.strip()}")
    program = [sys.executable, "-m", namespace_program.__name__]
    finished = subprocess.run(
        [*namespace, *program], check=False, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    # Most exist: the kernel refuses multicast addresses and some others.
    assert report["added"] > len(NOT_PUBLIC) / 2
    assert report["accepted"].keys() == {PUBLIC}
    assert report["accepted"][PUBLIC] == report["outcomes"]["delivered"] > REBINDINGS / 2
    assert report["outcomes"].keys() == {"delivered", "target_refused"}
