"""Loading the settings of a process, in the shape of the notifier's."""

from datetime import timedelta
from pathlib import Path

import pytest

from notifier.settings import Settings

DATABASE = "postgresql+psycopg://waybill:hunter2@db/waybill"
BROKER = "amqp://waybill:hunter2@broker/waybill"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*Settings.model_fields, "celery_broker_url"):
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", DATABASE)
    environment.setenv("RABBITMQ_URL", BROKER)
    environment.setenv("OUTBOX_POLL", "250ms")
    loaded = Settings.load()
    assert loaded.database_url.get_secret_value() == DATABASE
    assert loaded.rabbitmq_url.get_secret_value() == BROKER
    assert loaded.outbox_poll == timedelta(milliseconds=250)
    assert "hunter2" not in repr(loaded)


def test_the_broker_is_also_read_from_celerys_variable(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", DATABASE)
    environment.setenv("CELERY_BROKER_URL", BROKER)
    assert Settings.load().rabbitmq_url.get_secret_value() == BROKER


@pytest.mark.usefixtures("environment")
def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "database_url").write_text(DATABASE)
    (tmp_path / "rabbitmq_url").write_text(BROKER)
    assert Settings.load(secrets=tmp_path).database_url.get_secret_value() == DATABASE


def test_missing_and_invalid_settings_are_named_without_their_values(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("DATABASE_URL", DATABASE)
    environment.setenv("OUTBOX_BATCH", "hunter2")
    with pytest.raises(SystemExit) as stopped:
        Settings.load()
    assert stopped.value.code == 2
    output = capsys.readouterr().err
    assert "notifier: setting RABBITMQ_URL: Field required\n" in output
    assert "notifier: setting OUTBOX_BATCH: " in output
    assert "hunter2" not in output
