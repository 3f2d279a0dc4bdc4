import base64
from uuid import UUID

import pytest

from schemas.ids import WebhookId
from schemas.key_ring import KeyMissing, KeyRing, TokenDamaged
from schemas.policy import webhook_secrets
from schemas.policy.webhook_secrets import SecretKind, SecretMalformed
from tests.factories.secret_keys import KEYS, OTHER_KEY

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  # a published test vector
PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
ROW, OTHER_ROW = WebhookId(UUID(int=1)), WebhookId(UUID(int=2))


def test_a_secret_is_encrypted_for_its_row() -> None:
    stored = webhook_secrets.encrypt(SECRET, webhook_id=ROW, keys=KEYS)

    assert SECRET not in stored
    assert webhook_secrets.decrypt(stored, webhook_id=ROW, keys=KEYS) == SECRET
    with pytest.raises(TokenDamaged):
        webhook_secrets.decrypt(stored, webhook_id=OTHER_ROW, keys=KEYS)
    with pytest.raises(KeyMissing):
        webhook_secrets.decrypt(stored, webhook_id=ROW, keys=KeyRing.parse(OTHER_KEY))


def test_a_secret_that_is_not_encrypted_is_read_as_it_is() -> None:
    assert webhook_secrets.decrypt(SECRET, webhook_id=ROW, keys=KEYS) == SECRET


@pytest.mark.parametrize("kind", SecretKind)
def test_a_generated_secret_is_valid_and_new(kind: SecretKind) -> None:
    secret = webhook_secrets.generate(kind)

    assert webhook_secrets.kind_of(secret) is kind
    assert len(webhook_secrets.key_bytes(secret)) == 32
    assert webhook_secrets.generate(kind) != secret


def test_the_published_secret_has_the_published_public_key() -> None:
    assert webhook_secrets.public_key(PRIVATE) == PUBLIC


def test_a_shared_secret_has_no_public_key() -> None:
    with pytest.raises(SecretMalformed, match="no public key"):
        webhook_secrets.public_key(SECRET)


def encoded(prefix: str, key: bytes) -> str:
    return prefix + base64.b64encode(key).decode()


@pytest.mark.parametrize("size", [24, 64])
def test_a_secret_of_24_to_64_bytes_is_accepted(size: int) -> None:
    assert webhook_secrets.key_bytes(encoded("whsec_", b"s" * size)) == b"s" * size


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not start with whsec_ or whsk_"),
        (PUBLIC, "does not start with whsec_ or whsk_"),
        ("whsec_", "0 bytes, not 24 to 64"),
        (encoded("whsec_", b"s" * 23), "23 bytes, not 24 to 64"),
        (encoded("whsec_", b"s" * 65), "65 bytes, not 24 to 64"),
        ("whsec_not*base64*at*all*not*base64*at*all", "no base64 after whsec_"),
        ("whsec_" + "é" * 32, "no base64 after whsec_"),
        ("whsk_not*base64", "no base64 after whsk_"),
        (encoded("whsk_", b"s" * 32), "32 bytes, not 64"),
        (encoded("whsk_", b"s" * 64), "the public key belongs to another seed"),
    ],
)
def test_the_refusal_of_a_malformed_secret_does_not_contain_it(text: str, reason: str) -> None:
    with pytest.raises(SecretMalformed, match=reason) as caught:
        webhook_secrets.key_bytes(text)
    assert text not in str(caught.value)
    assert caught.value.__cause__ is None
