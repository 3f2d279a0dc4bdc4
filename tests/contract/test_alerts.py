"""The alerts in deploy/ name log events that the code writes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.stack.checkout import CHECKOUT

FILES = sorted((CHECKOUT / "deploy" / "alerts").glob("*.yaml"))
EVENT = re.compile(r'event="([a-z_.]+)"')


def rules_of(text: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_alert_names_an_event_that_is_logged(file: Path) -> None:
    sources = [path.read_text() for path in (CHECKOUT / "pipeline").rglob("*.py")]

    for rule in rules_of(file.read_text()):
        (event,) = EVENT.findall(rule["expr"])
        assert any(f'"{event}"' in source for source in sources), event
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"critical", "warning"}
