import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
import standardwebhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.policy import webhook_secrets, webhook_signing
from schemas.policy.webhook_secrets import SecretKind
from schemas.policy.webhook_signing import SigningKey, SigningSecret

NEW = SigningSecret(key=b"n" * 24)
OLD = SigningSecret(key=b"o" * 64)


def text_of(secret: SigningSecret) -> str:
    return "whsec_" + base64.b64encode(secret.key).decode()


@pytest.mark.parametrize(
    ("secret", "message_id", "seconds", "body", "signature"),
    [
        pytest.param(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            id="python-library",
        ),
        pytest.param(
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1649367553,
            b'{"email":"test@example.com","username":"test_user"}',
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            id="rust-library",
        ),
        pytest.param(
            "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
            id="svix-server",
        ),
    ],
)
def test_the_published_vectors_are_reproduced(
    *, secret: str, message_id: str, seconds: int, body: bytes, signature: str
) -> None:
    headers = webhook_signing.sign(
        webhook_signing.parse(secret),
        message_id=message_id,
        timestamp=datetime.fromtimestamp(seconds, tz=UTC),
        body=body,
    )
    assert headers == {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature,
    }


def test_the_official_library_verifies_a_signature() -> None:
    body = '{"emoji":"é…🛰"}'.encode()
    headers = webhook_signing.sign(NEW, message_id="evt-1", timestamp=datetime.now(UTC), body=body)
    assert standardwebhooks.Webhook(text_of(NEW)).verify(body, headers) == {"emoji": "é…🛰"}


def test_a_changed_byte_fails_verification() -> None:
    headers = webhook_signing.sign(
        NEW, message_id="evt-1", timestamp=datetime.now(UTC), body=b'{"a":1}'
    )
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(text_of(NEW)).verify(b'{"a":2}', headers)


def test_during_a_rotation_both_secrets_verify() -> None:
    headers = webhook_signing.sign(
        NEW, OLD, message_id="evt-1", timestamp=datetime.now(UTC), body=b'{"a":1}'
    )
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (NEW, OLD):
        assert standardwebhooks.Webhook(text_of(secret)).verify(b'{"a":1}', headers) == {"a": 1}


def test_the_zone_of_a_timestamp_does_not_change_the_signature() -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    elsewhere = noon.astimezone(timezone(timedelta(hours=9)))
    assert webhook_signing.sign(
        NEW, message_id="e", timestamp=noon, body=b""
    ) == webhook_signing.sign(NEW, message_id="e", timestamp=elsewhere, body=b"")


def test_a_timestamp_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        webhook_signing.sign(NEW, message_id="e", timestamp=datetime(2026, 7, 1), body=b"")  # noqa: DTZ001  # the mistake under test


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "a\r\nx: y", "é"])
def test_a_message_id_with_other_characters_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError, match="message id"):
        webhook_signing.sign(NEW, message_id=message_id, timestamp=datetime.now(UTC), body=b"")


def test_signing_without_a_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        webhook_signing.sign(message_id="e", timestamp=datetime.now(UTC), body=b"")


def test_a_public_key_verifies_the_signature_of_its_secret() -> None:
    secret = webhook_secrets.generate(SecretKind.V1A)
    signed = webhook_signing.sign(
        webhook_signing.parse(secret),
        message_id="evt-1",
        timestamp=datetime.now(UTC),
        body=b'{"a":1}',
    )
    public = Ed25519PublicKey.from_public_bytes(
        base64.b64decode(webhook_secrets.public_key(secret).removeprefix("whpk_"))
    )
    signature = base64.b64decode(signed["webhook-signature"].removeprefix("v1a,"))
    content = f"evt-1.{signed['webhook-timestamp']}.".encode()

    public.verify(signature, content + b'{"a":1}')
    with pytest.raises(InvalidSignature):
        public.verify(signature, content + b'{"a":2}')


def test_secrets_of_both_kinds_sign_one_message() -> None:
    key = webhook_signing.parse(webhook_secrets.generate(SecretKind.V1A))
    headers = webhook_signing.sign(
        key, NEW, message_id="evt-1", timestamp=datetime.now(UTC), body=b'{"a":1}'
    )

    versions = [each.partition(",")[0] for each in headers["webhook-signature"].split(" ")]
    assert versions == ["v1a", "v1"]
    assert standardwebhooks.Webhook(text_of(NEW)).verify(b'{"a":1}', headers) == {"a": 1}


def test_the_repr_of_a_secret_does_not_show_it() -> None:
    assert repr(NEW) == str(NEW) == "SigningSecret()"
    key = webhook_signing.parse(webhook_secrets.generate(SecretKind.V1A))
    assert isinstance(key, SigningKey)
    assert repr(key) == str(key) == "SigningKey()"
