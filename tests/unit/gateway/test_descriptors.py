import resource

import pytest
from structlog.testing import capture_logs

from gateway import descriptors
from gateway.settings import Settings
from tests.factories.secret_keys import KEY


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The limits of the process, soft and hard; the last one counts."""
    limits = [(1_024, 20_000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    return limits


def settings_with(bodies_max: int) -> Settings:
    return Settings.model_validate(
        {
            "database_url": "postgresql+psycopg://nobody@nowhere/none",
            "staging_dir": "/nowhere",
            "secret_keys": KEY,
            "bodies_max": bodies_max,
        }
    )


def test_the_soft_limit_is_raised_to_the_hard_limit(limits: list[tuple[int, int]]) -> None:
    with capture_logs() as logged:
        descriptors.raise_limit(settings_with(bodies_max=2_000))

    assert limits[-1] == (20_000, 20_000)
    assert logged == []


def test_a_hard_limit_below_the_settings_is_a_warning(limits: list[tuple[int, int]]) -> None:
    with capture_logs() as logged:
        descriptors.raise_limit(settings_with(bodies_max=20_000))

    assert limits[-1] == (20_000, 20_000)
    assert [(entry["event"], entry["log_level"], entry["allowed"]) for entry in logged] == [
        ("gateway.open_files_limited", "warning", 20_000)
    ]


def test_no_limit_needs_no_warning(limits: list[tuple[int, int]]) -> None:
    limits.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with capture_logs() as logged:
        descriptors.raise_limit(settings_with(bodies_max=20_000))

    assert (len(limits), logged) == (2, [])
