from datetime import timedelta
from pathlib import Path

import pytest

from gateway import settings
from gateway.settings import AdministrationSettings, Settings, StoreSettings
from schemas.settings import MIB

URL = "postgresql+psycopg://waybill:hunter2@db/waybill"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*Settings.model_fields, *StoreSettings.model_fields):
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


STORE = {"S3_BUCKET": "waybill", "S3_ACCESS_KEY_ID": "key", "S3_SECRET_ACCESS_KEY": "hunter2"}


@pytest.mark.parametrize("staging", ["directory", "s3"])
def test_a_store_that_is_told_is_known(monkeypatch: pytest.MonkeyPatch, staging: str) -> None:
    for name, value in STORE.items():
        monkeypatch.setenv(name, value)

    store = settings.load_store(some_settings(staging))

    assert store is not None
    assert store.s3_bucket == "waybill"


def test_with_a_directory_no_store_is_needed() -> None:
    assert settings.load_store(some_settings("directory")) is None


def test_staging_in_the_bucket_names_what_is_missing_of_the_store(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "hunter2")

    with pytest.raises(SystemExit):
        settings.load_store(some_settings("s3"))

    said = capsys.readouterr().err
    assert "S3_BUCKET: Field required" in said
    assert "hunter2" not in said


def some_settings(staging: str) -> Settings:
    return Settings.model_validate(
        {"database_url": URL, "staging": staging, "staging_dir": "/srv/staging"}
    )
