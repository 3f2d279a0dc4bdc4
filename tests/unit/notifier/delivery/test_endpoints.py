from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from notifier.delivery.endpoints import NoUsableSecret, prepare
from notifier.delivery.work import Endpoint, EndpointState, StoredSecret
from schemas.ids import TenantId, WebhookId
from tests.factories.secret_keys import KEYS
from tests.fakes.delivery_store import SECRET


@pytest.mark.parametrize("headers", [b"[1]", b"{", b'[{"name": "x-later", "values": []}]'])
def test_headers_that_a_later_version_wrote_are_a_problem_of_their_endpoint(headers: bytes) -> None:
    webhook_id = WebhookId(uuid4())
    endpoint = Endpoint(
        webhook_id=webhook_id,
        tenant_id=TenantId(uuid4()),
        version=1,
        state=EndpointState.ACTIVE,
        url="https://receiver.example/hook",
        secrets=(StoredSecret(secret=SECRET, expires_at=None),),
        headers=KEYS.encrypt(headers, context=f"webhooks.headers:{webhook_id}"),
    )
    ready = prepare(endpoint, keys=KEYS, timeout=timedelta(seconds=20))
    with pytest.raises(NoUsableSecret, match="malformed"):
        ready.signers(datetime.now(UTC))
