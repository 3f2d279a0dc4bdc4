from datetime import timedelta
from pathlib import Path

import pytest

from notifier import settings

DATABASE = "postgresql+psycopg://waybill:hunter2@db/waybill"
BROKER = "amqp://waybill:hunter2@broker/waybill"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("DATABASE_URL", "RABBITMQ_URL", "CELERY_BROKER_URL", "OUTBOX_BATCH"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_settings_are_read_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", DATABASE)
    environment.setenv("RABBITMQ_URL", BROKER)
    environment.setenv("OUTBOX_POLL", "250ms")
    loaded = settings.load()
    assert loaded.database_url.get_secret_value() == DATABASE
    assert loaded.rabbitmq_url.get_secret_value() == BROKER
    assert loaded.outbox_poll == timedelta(milliseconds=250)


def test_the_broker_is_also_found_under_celerys_name(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", DATABASE)
    environment.setenv("CELERY_BROKER_URL", BROKER)
    assert settings.load().rabbitmq_url.get_secret_value() == BROKER


@pytest.mark.usefixtures("environment")
def test_secrets_may_come_as_files(tmp_path: Path) -> None:
    (tmp_path / "database_url").write_text(DATABASE)
    (tmp_path / "rabbitmq_url").write_text(BROKER)
    loaded = settings.load(secrets=tmp_path)
    assert loaded.database_url.get_secret_value() == DATABASE


def test_what_is_missing_is_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("DATABASE_URL", DATABASE)
    with pytest.raises(SystemExit) as ended:
        settings.load()
    assert ended.value.code == 2
    assert "RABBITMQ_URL: Field required" in capsys.readouterr().err


def test_what_is_wrong_is_named_without_the_values(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("DATABASE_URL", DATABASE)
    environment.setenv("RABBITMQ_URL", BROKER)
    environment.setenv("OUTBOX_BATCH", "hunter2")
    with pytest.raises(SystemExit):
        settings.load()
    said = capsys.readouterr().err
    assert "OUTBOX_BATCH" in said
    assert "hunter2" not in said
