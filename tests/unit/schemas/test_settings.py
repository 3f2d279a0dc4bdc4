from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from schemas import settings
from schemas.key_ring import KeyRing
from schemas.settings import (
    HttpSettings,
    MalwareScanChoiceSettings,
    ObjectStoreSettings,
    RelaySettings,
    SecretSettings,
)
from tests.factories.secret_keys import KEY, OTHER_KEY


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("10s", timedelta(seconds=10)),
        ("1.5", timedelta(seconds=1.5)),
        ("5m", timedelta(minutes=5)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("PT10S", timedelta(seconds=10)),
    ],
)
def test_a_duration_has_an_optional_unit(written: str, meant: timedelta) -> None:
    assert RelaySettings.model_validate({"outbox_poll": written}).outbox_poll == meant


@pytest.mark.parametrize("written", ["0s", "-1s", "soon", "10 parsecs", ""])
def test_an_invalid_duration_is_refused(written: str) -> None:
    with pytest.raises(ValidationError):
        RelaySettings.model_validate({"outbox_poll": written})


def test_a_part_size_below_the_minimum_of_s3_is_refused() -> None:
    with pytest.raises(ValidationError):
        ObjectStoreSettings.model_validate(
            {
                "s3_bucket": "b",
                "s3_access_key_id": "k",
                "s3_secret_access_key": "s",
                "s3_part_size": "4MiB",
            },
        )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("clamd://scanner:3310", ("scanner", 3310)),
        ("clamd://scanner", ("scanner", 3310)),
        ("clamd://[::1]:4000/", ("::1", 4000)),
        ("clamd+unix:///run/clamav/clamd.ctl", Path("/run/clamav/clamd.ctl")),
        ("", None),
    ],
)
def test_the_url_of_a_scanner_names_its_address(
    written: str, meant: tuple[str, int] | Path | None
) -> None:
    chosen = MalwareScanChoiceSettings.model_validate({"malware_scan": written})
    assert chosen.scanner == meant


@pytest.mark.parametrize(
    "written",
    [
        "scanner:3310",
        "http://scanner:3310",
        "clamd://",
        "clamd://scanner:99999",
        "clamd://scanner/path",
        "clamd://user@scanner",
        "clamd+unix://",
        "clamd+unix://host/path",
    ],
)
def test_a_url_that_names_no_scanner_is_refused(written: str) -> None:
    with pytest.raises(ValidationError):
        MalwareScanChoiceSettings.model_validate({"malware_scan": written})


def test_every_setting_has_a_description() -> None:
    sections = [
        section
        for section in vars(settings).values()
        if isinstance(section, type) and issubclass(section, BaseModel) and section is not BaseModel
    ]
    assert len(sections) > 8
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_settings_do_not_print_their_secrets() -> None:
    store = ObjectStoreSettings.model_validate(
        {"s3_bucket": "b", "s3_access_key_id": "k", "s3_secret_access_key": "hush"},
    )
    assert "hush" not in repr(store)


@pytest.mark.parametrize("keys", ["hunter2", f"{KEY},hunter2", ""])
def test_a_malformed_key_is_refused_with_the_way_to_make_a_key(keys: str) -> None:
    with pytest.raises(ValidationError, match="openssl rand -base64 32") as refused:
        SecretSettings.model_validate({"secret_keys": keys})

    [problem] = refused.value.errors(include_input=False)
    assert problem["loc"] == ("secret_keys",)
    assert "hunter2" not in problem["msg"]


def test_the_keys_of_secrets_are_not_printed() -> None:
    loaded = SecretSettings.model_validate({"secret_keys": f"{OTHER_KEY}, {KEY}"})

    token = KeyRing.parse(KEY).encrypt("secret", context="a")
    assert loaded.key_ring.decrypt(token, context="a") == b"secret"
    assert KEY not in repr(loaded)


@pytest.mark.parametrize(
    "written",
    [
        "https://app.example.com",
        "http://localhost:3000,https://a-b.example:8443",
        "http://[::1]:3000",
        "capacitor://localhost",
        "http://127.0.0.1:8080",
        "*",
    ],
)
def test_an_origin_is_written_as_browsers_send_it(written: str) -> None:
    loaded = HttpSettings.model_validate({"cors_origins": written})

    assert loaded.cors_origins == tuple(written.split(","))


@pytest.mark.parametrize(
    "wrong",
    [
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://App.example.com",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "https://*.example.com",
        "https://user@app.example.com",
        "https://app.example.com,*",
        "null",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        HttpSettings.model_validate({"cors_origins": wrong})


def test_trusted_proxies_are_networks_or_addresses() -> None:
    loaded = HttpSettings.model_validate({"trusted_proxies": "10.0.0.0/8, 192.0.2.1,fd00::/8"})

    assert list(map(str, loaded.trusted_proxies)) == ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("*", "not appear to be"),
        ("proxy.internal", "not appear to be"),
        ("10.0.0.1/8", "has host bits set"),
        ("10.0.0.0/33", "not appear to be"),
    ],
)
def test_a_trusted_proxy_that_is_no_network_is_refused_with_one_reason(
    wrong: str, reason: str
) -> None:
    with pytest.raises(ValidationError, match=f"1 validation error(?s:.*){reason}"):
        HttpSettings.model_validate({"trusted_proxies": wrong})
