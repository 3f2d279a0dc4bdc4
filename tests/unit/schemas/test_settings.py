from datetime import timedelta

import pytest
from pydantic import BaseModel, ValidationError

from schemas import settings
from schemas.key_ring import KeyRing
from schemas.settings import ObjectStoreSettings, RelaySettings, SecretSettings
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
