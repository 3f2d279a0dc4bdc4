"""Refusals that are sent before the body was read reach the client."""

from uuid import uuid4

import pytest

from tests.integration.gateway.api import MIB
from tests.integration.gateway.clients.conftest import Gateway

pytestmark = pytest.mark.anyio


async def test_a_refused_body_leaves_the_connection_usable(gateway: Gateway) -> None:
    async with gateway.connect() as connection:
        path = f"/api/v1/uploads/{uuid4()}/chunks/0"
        await connection.request("PUT", path, f"Content-Length: {MIB}", body=bytes(MIB))
        assert (await connection.answer()).json["code"] == "upload_not_found"

        await connection.request("GET", "/api/v1/jobs")
        assert (await connection.answer()).status == 200
