from datetime import timedelta

import pytest

from gateway.settings import AdministrationSettings, Settings, StoreSettings, load_store
from schemas.runtime.settings_loader import program
from schemas.settings import MIB
from tests.factories.secret_keys import KEY

URL = "postgresql+psycopg://waybill:hunter2@db/waybill"
STORE = {"S3_BUCKET": "waybill", "S3_ACCESS_KEY_ID": "key", "S3_SECRET_ACCESS_KEY": "hunter2"}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*Settings.model_fields, *StoreSettings.model_fields):
        monkeypatch.delenv(name.upper(), raising=False)


def settings_with(staging: str) -> Settings:
    return Settings.model_validate(
        {
            "database_url": URL,
            "staging": staging,
            "staging_dir": "/srv/staging",
            "secret_keys": KEY,
        }
    )


def test_durations_sizes_and_switches_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("STAGING_DIR", "/srv/staging")
    monkeypatch.setenv("SECRET_KEYS", KEY)
    monkeypatch.setenv("UPLOAD_TTL", "2h")
    monkeypatch.setenv("CHUNK_SIZE_DEFAULT", "16MiB")
    monkeypatch.setenv("UPLOADS_ASYNC_ENABLED", "false")

    loaded = Settings.load()

    assert loaded.upload_ttl == timedelta(hours=2)
    assert loaded.chunk_size_default == 16 * MIB
    assert not loaded.uploads_async_enabled


def test_staging_in_a_directory_requires_the_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("SECRET_KEYS", KEY)

    with pytest.raises(SystemExit) as stopped:
        Settings.load()

    assert stopped.value.code == 2
    output = capsys.readouterr().err
    assert output == f"{program()}: setting STAGING_DIR is required if STAGING=directory\n"


def test_administration_requires_only_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)

    assert AdministrationSettings.load().database_url.get_secret_value() == URL


@pytest.mark.parametrize("staging", ["directory", "s3"])
def test_a_configured_store_is_loaded(monkeypatch: pytest.MonkeyPatch, staging: str) -> None:
    for name, value in STORE.items():
        monkeypatch.setenv(name, value)

    store = load_store(settings_with(staging))

    assert store is not None
    assert store.s3_bucket == "waybill"


def test_staging_in_a_directory_requires_no_store() -> None:
    assert load_store(settings_with("directory")) is None


def test_staging_in_the_bucket_names_a_missing_setting_of_the_store(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "hunter2")

    with pytest.raises(SystemExit):
        load_store(settings_with("s3"))

    output = capsys.readouterr().err
    assert "S3_BUCKET: Field required" in output
    assert "hunter2" not in output
