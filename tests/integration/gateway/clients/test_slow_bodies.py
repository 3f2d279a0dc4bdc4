"""Clients that stop in the middle of a body, or send it byte by byte."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import pytest

from tests.integration.gateway.api import KIB64, Api
from tests.integration.gateway.clients.conftest import Gateway
from tests.integration.gateway.clients.raw import Connection

pytestmark = pytest.mark.anyio

FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + bytes(
    KIB64
)
FORM_TYPE = "Content-Type: multipart/form-data; boundary=b"
JSON_TYPE = "Content-Type: application/json"
REQUESTS: Mapping[str, tuple[str, str, str, bytes]] = {
    "chunk": ("PUT", "/uploads/{upload_id}/chunks/0", "Accept: */*", bytes(KIB64 // 2)),
    "form": ("POST", "/upload-async", FORM_TYPE, FORM),
    "form_as_a_job": ("POST", "/jobs", FORM_TYPE, FORM),
    "json": ("POST", "/uploads", JSON_TYPE, b'{"filename": "a"'),
    "json_of_a_reference": ("POST", "/jobs", JSON_TYPE, b'{"object_key": "a"'),
}


@pytest.fixture(scope="module")
def gateway_settings() -> Mapping[str, str]:
    return {"BODY_SILENCE_MAX": "1s", "BODY_RATE_MIN": "1KiB"}


async def trickle(connection: Connection) -> None:
    with suppress(ConnectionError):
        while True:
            connection.writer.write(b" ")
            await connection.writer.drain()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("trickles", [False, True], ids=["silent", "trickling"])
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_body_that_arrives_too_slowly_is_refused_and_its_connection_closed(
    gateway: Gateway, api: Api, name: str, *, trickles: bool
) -> None:
    method, path, content_type, body = REQUESTS[name]
    upload_id = await api.created(size=KIB64)
    async with gateway.connect() as connection:
        await connection.request(
            method,
            f"/api/v1{path.format(upload_id=upload_id)}",
            content_type,
            f"Content-Length: {KIB64 if name == 'chunk' else len(body) + 10_000}",
            body=body,
        )
        trickling = asyncio.create_task(trickle(connection)) if trickles else None

        answer = await connection.answer()

        if trickling is not None:
            trickling.cancel()
        assert (answer.status, answer.json["code"]) == (408, "body_too_slow")
        assert answer.fields["connection"] == "close"
        with suppress(ConnectionResetError):
            assert await connection.rest() == b""


async def test_a_body_above_the_rate_may_take_longer_than_the_longest_silence(
    gateway: Gateway, api: Api
) -> None:
    upload_id = await api.created(size=KIB64)
    async with gateway.connect() as connection:
        await connection.request(
            "PUT", f"/api/v1/uploads/{upload_id}/chunks/0", f"Content-Length: {KIB64}"
        )
        for _ in range(16):
            connection.writer.write(bytes(KIB64 // 16))
            await connection.writer.drain()
            await asyncio.sleep(0.15)

        assert (await connection.answer()).status == 200
