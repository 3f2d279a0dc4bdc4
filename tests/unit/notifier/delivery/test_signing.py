import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
import standardwebhooks

from notifier.delivery import signing
from notifier.delivery.signing import SigningSecret, SigningSecretMalformed

NEW = SigningSecret(b"n" * 24)
OLD = SigningSecret(b"o" * 64)


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
    ],
)
def test_the_published_vectors_are_reproduced(
    *, secret: str, message_id: str, seconds: int, body: bytes, signature: str
) -> None:
    headers = signing.sign(
        SigningSecret.parse(secret),
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
    headers = signing.sign(NEW, message_id="evt-1", timestamp=datetime.now(UTC), body=body)
    assert standardwebhooks.Webhook(text_of(NEW)).verify(body, headers) == {"emoji": "é…🛰"}


def test_a_changed_byte_fails_verification() -> None:
    headers = signing.sign(NEW, message_id="evt-1", timestamp=datetime.now(UTC), body=b'{"a":1}')
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(text_of(NEW)).verify(b'{"a":2}', headers)


def test_during_a_rotation_both_secrets_verify() -> None:
    headers = signing.sign(
        NEW, OLD, message_id="evt-1", timestamp=datetime.now(UTC), body=b'{"a":1}'
    )
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (NEW, OLD):
        assert standardwebhooks.Webhook(text_of(secret)).verify(b'{"a":1}', headers) == {"a": 1}


def test_the_zone_of_a_timestamp_does_not_change_the_signature() -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    elsewhere = noon.astimezone(timezone(timedelta(hours=9)))
    assert signing.sign(NEW, message_id="e", timestamp=noon, body=b"") == signing.sign(
        NEW, message_id="e", timestamp=elsewhere, body=b""
    )


def test_a_timestamp_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        signing.sign(NEW, message_id="e", timestamp=datetime(2026, 7, 1), body=b"")  # noqa: DTZ001  # the mistake under test


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "a\r\nx: y", "é"])
def test_a_message_id_with_other_characters_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError, match="message id"):
        signing.sign(NEW, message_id=message_id, timestamp=datetime.now(UTC), body=b"")


def test_signing_without_a_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        signing.sign(message_id="e", timestamp=datetime.now(UTC), body=b"")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not start with whsec_"),
        ("whsec_", "0 bytes, not 24 to 64"),
        ("whsec_" + base64.b64encode(b"s" * 23).decode(), "23 bytes, not 24 to 64"),
        ("whsec_" + base64.b64encode(b"s" * 65).decode(), "65 bytes, not 24 to 64"),
        ("whsec_not*base64*at*all*not*base64*at*all", "no base64 after whsec_"),
        ("whsec_" + "é" * 32, "no base64 after whsec_"),
    ],
)
def test_the_refusal_of_a_malformed_secret_does_not_contain_it(text: str, reason: str) -> None:
    with pytest.raises(SigningSecretMalformed, match=reason) as caught:
        SigningSecret.parse(text)
    assert text not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("size", [24, 64])
def test_a_secret_of_24_to_64_bytes_is_accepted(size: int) -> None:
    assert SigningSecret.parse(text_of(SigningSecret(b"s" * size))).key == b"s" * size


def test_the_repr_of_a_secret_does_not_show_it() -> None:
    assert repr(NEW) == str(NEW) == "SigningSecret()"
