import pytest

from dev.stack import infrastructure
from dev.stack.errors import SettingMissing
from dev.stack.infrastructure import Part

OBJECT_STORE = {
    "S3_ENDPOINT_URL": "https://s3.example",
    "S3_ACCESS_KEY_ID": "key",
    "S3_SECRET_ACCESS_KEY": "secret",
}


def test_no_part_is_given_by_default() -> None:
    assert infrastructure.supplied({"UPLOAD_TTL": "PT1H"}) == {}


def test_a_part_with_an_address_is_used_and_not_started() -> None:
    settings = {"DATABASE_URL": "postgresql://there", "RABBITMQ_URL": "amqp://there"}

    assert infrastructure.supplied(settings) == {
        Part.POSTGRES: {"DATABASE_URL": "postgresql://there"},
        Part.RABBITMQ: {"RABBITMQ_URL": "amqp://there"},
    }


def test_an_object_store_has_a_default_bucket() -> None:
    unnamed = infrastructure.supplied(OBJECT_STORE)
    named = infrastructure.supplied(OBJECT_STORE | {"S3_BUCKET": "files"})

    assert unnamed[Part.OBJECT_STORE]["S3_BUCKET"] == "waybill"
    assert named[Part.OBJECT_STORE]["S3_BUCKET"] == "files"


@pytest.mark.parametrize("missing", ["S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"])
def test_an_object_store_without_credentials_is_an_error(missing: str) -> None:
    settings = {name: value for name, value in OBJECT_STORE.items() if name != missing}

    with pytest.raises(SettingMissing, match=missing):
        infrastructure.supplied(settings)
