from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from gateway.http import stream_tokens
from gateway.http.stream_tokens import StreamToken, StreamTokenRefused
from schemas.ids import ApiKeyId, JobId, TenantId
from schemas.key_ring import KeyRing
from tests.factories.secret_keys import KEY, OTHER_KEY

RING = KeyRing.parse(KEY)
TOKEN = StreamToken(
    tenant_id=TenantId(uuid4()),
    job_id=JobId(uuid4()),
    key_id=ApiKeyId(uuid4()),
    expires_at=datetime(2026, 11, 27, 12, 0, 1, tzinfo=UTC),
)


def test_a_token_holds_its_facts_in_characters_of_a_url() -> None:
    encoded = TOKEN.encode(RING)

    assert StreamToken.decode(encoded, keys=RING) == TOKEN
    assert len(encoded) == stream_tokens.LENGTH
    assert encoded.startswith("wbs_")
    assert encoded.replace("-", "").replace("_", "").isalnum()


def test_a_token_without_a_job_is_for_the_feed() -> None:
    token = replace(TOKEN, job_id=None)

    assert StreamToken.decode(token.encode(RING), keys=RING) == token


def test_a_token_stays_valid_while_its_signing_key_is_in_the_ring() -> None:
    encoded = TOKEN.encode(RING)

    assert StreamToken.decode(encoded, keys=KeyRing.parse(f"{OTHER_KEY},{KEY}")) == TOKEN
    with pytest.raises(StreamTokenRefused):
        StreamToken.decode(encoded, keys=KeyRing.parse(OTHER_KEY))


@pytest.mark.parametrize("position", range(len("wbs_"), stream_tokens.LENGTH))
def test_a_token_with_a_changed_character_is_refused(position: int) -> None:
    encoded = TOKEN.encode(RING)
    other = "A" if encoded[position] != "A" else "B"

    with pytest.raises(StreamTokenRefused):
        StreamToken.decode(encoded[:position] + other + encoded[position + 1 :], keys=RING)


def test_facts_of_one_token_with_the_signature_of_another_are_refused() -> None:
    mine, other = TOKEN.encode(RING), replace(TOKEN, job_id=JobId(uuid4())).encode(RING)

    with pytest.raises(StreamTokenRefused):
        StreamToken.decode(mine[:60] + other[60:], keys=RING)


@pytest.mark.parametrize(
    "malformed",
    ["", "wbs_", "x", "wb_abc", "wbs_" + "A" * 128, "wbs_" + "A" * 10_000, "wbs_" + "ü" * 128],
    ids=lambda text: f"{text[:8]} {len(text)}",
)
def test_a_malformed_token_is_refused_without_repeating_it(malformed: str) -> None:
    with pytest.raises(StreamTokenRefused) as refused:
        StreamToken.decode(malformed, keys=RING)

    assert len(str(refused.value)) < 100


def test_a_token_without_its_last_or_with_another_character_is_refused() -> None:
    encoded = TOKEN.encode(RING)

    for changed in (encoded[:-1], encoded + "A", encoded + "=", " " + encoded):
        with pytest.raises(StreamTokenRefused):
            StreamToken.decode(changed, keys=RING)
