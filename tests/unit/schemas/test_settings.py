from datetime import timedelta

import pytest
from pydantic import BaseModel, ValidationError

from schemas import settings
from schemas.settings import ObjectStoreSettings, RelaySettings


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
