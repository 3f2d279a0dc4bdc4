"""Clients that disconnect before their answer: no error is logged and no request keeps waiting."""

import asyncio
import socket
import struct

import httpx
import pytest

from tests.integration.gateway.api import Api
from tests.integration.gateway.conftest import MakeKey, Start

pytestmark = pytest.mark.anyio

AT_ONCE = struct.pack("ii", 1, 0)
"""`SO_LINGER`: close with a reset and discard unsent data."""


def get(path: str, *, key: str) -> bytes:
    head = f"GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\r\n"
    return head.encode("ascii")


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_disconnects_from_several_requests_causes_no_error(
    start: Start, make_key: MakeKey, *, with_reset: bool
) -> None:
    process = await start()
    async with httpx.AsyncClient(base_url=process.url, timeout=60, trust_env=False) as http:
        api = Api(http, await make_key())
        _, job_id = await api.finalized()
        waiting = get(f"/api/v1/jobs/{job_id}?wait=20", key=api.key)
        _, writer = await asyncio.open_connection("127.0.0.1", process.port)

        writer.write(waiting + get("/health/live", key=api.key))
        await process.first_logged("job.awaited")
        if with_reset:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        writer.close()

        async with asyncio.timeout(10):
            *_, ended = await process.logged_times("http.request", count=4)
        assert ended["route"] == "/api/v1/jobs/{job_id}"
    assert await process.stop() == 0
    assert "Traceback" not in process.log_file.read_text()
