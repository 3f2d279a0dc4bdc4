"""`var/dev.env` alone is enough to run a service by hand."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dev.stack import dev_env
from dev.stack.checkout import CHECKOUT
from dev.stack.stack import Stack
from tests.eventually import eventually


@pytest.fixture(scope="module")
def written(infrastructure: Stack, migrated_template: str) -> Iterator[Mapping[str, str]]:
    """The settings in the file that a stack writes."""
    with infrastructure.scoped("dev-env", template=migrated_template) as own:
        Path(own.environment["STAGING_DIR"]).mkdir()
        dev_env.write(own)
        yield dev_env.read(own.state_dir)


def test_every_setting_of_a_worker_is_in_the_file(written: Mapping[str, str]) -> None:
    program = "from pipeline.settings import Settings; Settings.load()"
    subprocess.run([sys.executable, "-c", program], env=written, cwd=CHECKOUT, check=True)


@pytest.mark.parametrize(
    ("command", "event"),
    [
        (("gateway", "serve"), "gateway.listening"),
        (("notifier", "relay"), "relay.started"),
        (("notifier", "deliver"), "deliver.started"),
    ],
    ids=["gateway", "relay", "deliver"],
)
def test_a_service_starts_with_the_file_alone(
    written: Mapping[str, str], tmp_path: Path, command: tuple[str, ...], event: str
) -> None:
    log = tmp_path / "service.log"

    def events() -> set[str]:
        *lines, _ = log.read_text().split("\n")
        assert process.poll() is None, log.read_text()
        return {json.loads(line)["event"] for line in lines if line.startswith("{")}

    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            # The port in the file is that of the stack's own gateway.
            env={**written, "GATEWAY_PORT": "0"},
            cwd=CHECKOUT,
            stderr=file,
        )
        try:
            eventually(events, until=lambda found: event in found)
        finally:
            process.kill()
            process.wait()
