"""A new machine installs exactly what the lock files pin."""

import re
from pathlib import Path

import pytest

from dev.stack.checkout import CHECKOUT

LOCKS = ["bootstrap.txt", "dev.txt", "runtime.txt", "swift.txt"]


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_pinned_with_hashes_and_names_no_registry(name: str) -> None:
    text = (CHECKOUT / "dev" / "locks" / name).read_text()
    # A requirement starts in the first column; its hashes are continued lines.
    requirements = re.split(r"\n(?=[a-z0-9])", text)

    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9._\[\]-]+==", requirement), requirement
        assert "--hash=sha256:" in requirement
    assert "://" not in text
    assert "--index" not in text


def test_the_commands_of_the_make_targets_exist() -> None:
    for script in ("venv.sh", "rabbitmq.sh", "nginx.sh"):
        assert Path(CHECKOUT, "dev", "stack", "install", script).exists()
        assert f"dev/stack/install/{script}" in (CHECKOUT / "Makefile").read_text()
