import base64
from collections.abc import Callable

import pytest

from schemas.key_ring import (
    SIGNATURE_BYTES,
    DecryptionFailed,
    KeyMalformed,
    KeyMissing,
    KeyRing,
    TokenDamaged,
)
from tests.factories.secret_keys import KEY, OTHER_KEY

RING = KeyRing.parse(KEY)
CONTEXT = "table.column:1"


def changed_at(position: int) -> Callable[[str], str]:
    def change(token: str) -> str:
        other = "A" if token[position] != "A" else "B"
        return token[:position] + other + token[position + 1 :]

    return change


@pytest.mark.parametrize("secret", [b"", b"\x00\xff", b"x" * 10_000, "whsec_abc", "größe"])
def test_an_encrypted_secret_decrypts_to_itself(secret: str | bytes) -> None:
    token = RING.encrypt(secret, context=CONTEXT)

    expected = secret.encode() if isinstance(secret, str) else secret
    assert RING.decrypt(token, context=CONTEXT) == expected


def test_two_tokens_of_one_secret_differ_and_do_not_contain_it() -> None:
    first, second = (RING.encrypt("whsec_abc", context=CONTEXT) for _ in range(2))

    assert first != second
    for token in (first, second):
        assert token.startswith(RING.prefix)
        assert "whsec" not in token
        assert b"whsec" not in base64.urlsafe_b64decode(token.removeprefix(RING.prefix))


def test_the_first_key_encrypts_and_every_key_decrypts() -> None:
    old_token = RING.encrypt("secret", context=CONTEXT)
    rotated = KeyRing.parse(f"{OTHER_KEY}, {KEY}")

    new_token = rotated.encrypt("secret", context=CONTEXT)

    assert rotated.decrypt(old_token, context=CONTEXT) == b"secret"
    assert not old_token.startswith(rotated.prefix)
    assert KeyRing.parse(OTHER_KEY).decrypt(new_token, context=CONTEXT) == b"secret"
    with pytest.raises(KeyMissing):
        RING.decrypt(new_token, context=CONTEXT)


def test_a_missing_key_is_named_by_its_id() -> None:
    token = KeyRing.parse(OTHER_KEY).encrypt("secret", context=CONTEXT)

    with pytest.raises(KeyMissing, match=token.split(".")[1]) as failed:
        RING.decrypt(token, context=CONTEXT)

    assert isinstance(failed.value, DecryptionFailed)
    assert OTHER_KEY not in str(failed.value)


def test_a_token_of_another_context_does_not_decrypt() -> None:
    token = RING.encrypt("secret", context=CONTEXT)

    with pytest.raises(TokenDamaged, match="another row"):
        RING.decrypt(token, context="table.column:2")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda token: token[:-8], id="shorter"),
        pytest.param(lambda token: token + "AAAA", id="longer"),
        pytest.param(lambda token: token[: len(RING.prefix)] + "AAAA", id="only a nonce"),
        pytest.param(lambda token: token[: len(RING.prefix)] + "A", id="not base64"),
        pytest.param(lambda token: token[: len(RING.prefix)], id="only the prefix"),
        pytest.param(lambda token: token.replace("v1", "v2"), id="another version"),
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda _: "whsec_abc", id="plain"),
        pytest.param(changed_at(len(RING.prefix) + 1), id="changed nonce"),
        pytest.param(changed_at(-6), id="changed tag"),
    ],
)
def test_a_damaged_token_does_not_decrypt(damage: Callable[[str], str]) -> None:
    token = RING.encrypt("a secret of some length", context=CONTEXT)

    with pytest.raises(TokenDamaged) as failed:
        RING.decrypt(damage(token), context=CONTEXT)

    assert failed.value.__cause__ is None


def test_a_key_may_be_standard_or_url_safe_base64() -> None:
    key = b"\xfb\xff" * 16
    standard, url_safe = base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode()
    assert standard != url_safe

    token = KeyRing.parse(standard).encrypt("secret", context=CONTEXT)

    assert KeyRing.parse(url_safe).decrypt(token, context=CONTEXT) == b"secret"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "key 1 has 0 bytes"),
        ("hunter2!", "key 1 is not base64"),
        ("aHVudGVyMg==", "key 1 has 7 bytes, not 32"),
        (f"{KEY},hunter2!", "key 2 is not base64"),
        (f"{KEY},", "key 2 has 0 bytes"),
        (KEY + KEY, "key 1"),
    ],
)
def test_the_refusal_of_a_malformed_key_does_not_contain_it(text: str, reason: str) -> None:
    with pytest.raises(KeyMalformed, match=reason) as refused:
        KeyRing.parse(text)

    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_repr_of_a_key_ring_does_not_show_a_key() -> None:
    assert KEY not in repr(RING)
    assert repr(bytes(range(32))) not in repr(vars(RING))


def test_a_signature_is_valid_for_its_message_and_context_alone() -> None:
    signature = RING.sign(b"message", context=CONTEXT)

    assert len(signature) == SIGNATURE_BYTES
    assert RING.is_signed(b"message", signature, context=CONTEXT)
    assert not RING.is_signed(b"messagE", signature, context=CONTEXT)
    assert not RING.is_signed(b"message", signature, context="table.column:2")
    assert not RING.is_signed(b"message", signature[:-1], context=CONTEXT)
    assert not RING.is_signed(b"message", b"", context=CONTEXT)


def test_the_first_key_signs_and_every_key_verifies() -> None:
    old = RING.sign(b"message", context=CONTEXT)
    rotated = KeyRing.parse(f"{OTHER_KEY},{KEY}")

    assert rotated.is_signed(b"message", old, context=CONTEXT)
    assert rotated.sign(b"message", context=CONTEXT) != old
    assert not KeyRing.parse(OTHER_KEY).is_signed(b"message", old, context=CONTEXT)
