from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from gateway import settings
from gateway.settings import AdministrationSettings, Settings
from schemas.settings import MIB

if TYPE_CHECKING:
    from pathlib import Path

URL = "postgresql+psycopg://waybill:hunter2@db/waybill"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("STAGING_DIR", str(tmp_path))
    monkeypatch.setenv("UPLOAD_TTL", "2h")
    monkeypatch.setenv("CHUNK_SIZE_DEFAULT", "16MiB")
    monkeypatch.setenv("UPLOADS_ASYNC_ENABLED", "false")

    loaded = settings.load(Settings)

    assert loaded.database_url.get_secret_value() == URL
    assert loaded.upload_ttl == timedelta(hours=2)
    assert loaded.chunk_size_default == 16 * MIB
    assert not loaded.uploads_async_enabled
    assert "hunter2" not in repr(loaded)


def test_what_is_missing_or_wrong_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STAGING_DIR", "/srv/staging")
    monkeypatch.setenv("GATEWAY_PORT", "hunter2")

    with pytest.raises(SystemExit) as stopped:
        settings.load(Settings)

    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "DATABASE_URL: Field required" in said
    assert "GATEWAY_PORT" in said
    assert "hunter2" not in said


def test_administration_needs_the_database_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)

    assert settings.load(AdministrationSettings).database_url.get_secret_value() == URL
