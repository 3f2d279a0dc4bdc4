"""A gateway whose clock differs from the database's by days works normally."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.gateway.api import KIB64, Api
from tests.integration.gateway.conftest import Serve

pytestmark = pytest.mark.anyio

TTL = timedelta(hours=1)
TOLERANCE = timedelta(minutes=1)


async def send_all(api: Api) -> datetime:
    """Create, send and finalize an upload; return its expiry."""
    content = bytes(2 * KIB64)
    created = await api.create(size=len(content))
    assert created.status_code == 201, created.text
    upload_id = created.json()["upload_id"]
    for index in range(2):
        answer = await api.put(upload_id, index, content[:KIB64])
        assert answer.status_code == 200, answer.text
    answer = await api.finalize(upload_id)
    assert answer.status_code == 202, answer.text
    return datetime.fromisoformat(created.json()["expires_at"])


async def test_an_upload_expires_by_the_clock_of_the_database(
    clock_shift: timedelta, serve: Serve
) -> None:
    async with serve(upload_ttl=TTL) as api:
        expires_at = await send_all(api)

    assert abs(expires_at - (datetime.now(UTC) + clock_shift + TTL)) < TOLERANCE
