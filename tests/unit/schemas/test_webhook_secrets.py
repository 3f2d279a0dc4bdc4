from uuid import UUID

import pytest

from schemas.ids import WebhookId
from schemas.key_ring import KeyMissing, KeyRing, TokenDamaged
from schemas.policy import webhook_secrets
from tests.factories.secret_keys import KEYS, OTHER_KEY

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  # a published test vector
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
