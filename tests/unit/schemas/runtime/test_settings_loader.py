"""Loading the settings of a process, in the shape of the notifier's."""

import sys
from datetime import timedelta
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from notifier.settings import Settings
from schemas.runtime.settings_loader import program

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


def test_an_invalid_item_of_a_list_is_reported_under_the_name_of_the_setting(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("DATABASE_URL", DATABASE)
    environment.setenv("RABBITMQ_URL", BROKER)
    environment.setenv("WEBHOOK_RETRY_DELAYS", "5s,soon")
    with pytest.raises(SystemExit):
        Settings.load()
    assert f"{program()}: setting WEBHOOK_RETRY_DELAYS: " in capsys.readouterr().err


def test_missing_and_invalid_settings_are_named_without_their_values(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("DATABASE_URL", DATABASE)
    environment.setenv("OUTBOX_BATCH", "hunter2")
    with pytest.raises(SystemExit) as stopped:
        Settings.load()
    assert stopped.value.code == 2
    output = capsys.readouterr().err
    assert f"{program()}: setting RABBITMQ_URL: Field required\n" in output
    assert f"{program()}: setting OUTBOX_BATCH: " in output
    assert "hunter2" not in output


def test_the_urls_of_several_brokers_are_separated_by_commas_or_semicolons(
    environment: pytest.MonkeyPatch,
) -> None:
    first, second, third = (f"amqps://waybill:a,b;c@node-{number}/waybill" for number in range(3))
    environment.setenv("DATABASE_URL", DATABASE)
    environment.setenv("RABBITMQ_URL", f"{first}, {second};{third},")
    assert Settings.load().rabbitmq_urls == (first, second, third)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "URL 1 of 1 is not of the form"),
        (f"{BROKER},http://waybill:hunter2@broker/waybill", "URL 2 of 2 is not of the form"),
        (f"{BROKER},amqp:///waybill", "URL 2 of 2 is not of the form"),
        (f"{BROKER},amqp://waybill:hunter2@broker:hunter2/", "URL 2 of 2 is not of the form"),
        ("amqp://waybill:hunter2@one:5672,two:5672/waybill", "URL 1 of 1 is not of the form"),
        (f"{BROKER},amqp://waybill:hunter2@two/other", "the same virtual host"),
    ],
    ids=["empty", "scheme", "no host", "port", "list of hosts", "another virtual host"],
)
def test_an_invalid_url_of_a_broker_is_refused_without_its_password(
    value: str,
    message: str,
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment.setenv("DATABASE_URL", DATABASE)
    environment.setenv("RABBITMQ_URL", value)
    with pytest.raises(SystemExit):
        Settings.load()
    output = capsys.readouterr().err
    assert f"{program()}: setting RABBITMQ_URL: " in output
    assert message in output
    assert "hunter2" not in output


@pytest.mark.parametrize(
    ("module", "path", "expected"),
    [
        (None, "/usr/bin/waybill", "waybill"),
        (None, "/venv/bin/waybill-gateway", "waybill-gateway"),
        ("gateway.__main__", "/app/gateway/__main__.py", "python -m gateway"),
        ("notifier.__main__", "/app/notifier/__main__.py", "python -m notifier"),
    ],
)
def test_a_message_names_the_program_that_runs(
    monkeypatch: pytest.MonkeyPatch, module: str | None, path: str, expected: str
) -> None:
    spec = None if module is None else ModuleSpec(module, None)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", [path])
    assert program() == expected
