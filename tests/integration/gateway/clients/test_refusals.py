"""A refusal before the end of the body reaches the client, and the connection ends soon after."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from uuid import uuid4

import psutil
import pytest

from tests.integration.gateway.api import KIB64, MIB, Api
from tests.integration.gateway.clients import nginx
from tests.integration.gateway.clients.conftest import Gateway
from tests.integration.gateway.clients.raw import TIMEOUT, Connection
from tests.integration.gateway.conftest import Start

pytestmark = pytest.mark.anyio

SIZE = 8 * MIB
BODY = bytes(SIZE)

TRIES = 20

FORM_HEAD = (
    b"--b\r\nContent-Disposition: form-data; name=file; filename=a.png\r\n"
    b"Content-Type: image/png\r\n\r\n\x89PNG\r\n\x1a\n"
)


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A request that is refused before its body is read; the start of the body may matter."""

    method: str
    path: str
    fields: tuple[str, ...] = ()
    begin: bytes = b""

    @property
    def body(self) -> bytes:
        return self.begin + BODY[len(self.begin) :]


def put(upload_id: object, *fields: str) -> Refused:
    return Refused(method="PUT", path=f"/api/v1/uploads/{upload_id}/chunks/0", fields=fields)


async def unknown_upload(_: Api) -> Refused:
    return put(uuid4())


async def malformed_digest(api: Api) -> Refused:
    return put(await api.created(size=SIZE, chunk_size=SIZE), "Content-Digest: nonsense")


async def unknown_key(_: Api) -> Refused:
    return put(uuid4(), "Authorization: Bearer wb_unknown")


async def settled_upload(api: Api) -> Refused:
    upload_id = await api.created(size=SIZE, chunk_size=SIZE)
    assert (await api.ask("DELETE", f"/uploads/{upload_id}")).is_success
    return put(upload_id)


async def long_chunk(api: Api) -> Refused:
    return put(await api.created(size=KIB64))


async def long_json(_: Api) -> Refused:
    return Refused(
        method="POST", path="/api/v1/uploads", fields=("Content-Type: application/json",)
    )


async def refused_type(_: Api) -> Refused:
    return Refused(
        method="POST",
        path="/api/v1/upload-async",
        fields=("Content-Type: multipart/form-data; boundary=b",),
        begin=FORM_HEAD,
    )


async def malformed_form(_: Api) -> Refused:
    return Refused(
        method="POST",
        path="/api/v1/upload-async",
        fields=("Content-Type: multipart/form-data; boundary=b",),
    )


REFUSALS: Mapping[Callable[[Api], Awaitable[Refused]], tuple[int, str]] = {
    malformed_digest: (400, "digest_invalid"),
    malformed_form: (400, "invalid_request"),
    long_chunk: (400, "chunk_size_mismatch"),
    unknown_key: (401, "unauthenticated"),
    unknown_upload: (404, "upload_not_found"),
    settled_upload: (409, "upload_not_open"),
    long_json: (413, "invalid_request"),
    refused_type: (415, "type_not_allowed"),
}

ENDING = {
    "http/1.0": ("1.0", ()),
    "close": ("1.1", ("Connection: close",)),
}


@pytest.fixture(scope="module")
def gateway_settings() -> Mapping[str, str]:
    return {
        "ALLOWED_TYPES": "application/octet-stream,text/*",
        "LINGER_SILENCE": "1s",
        "LINGER_BYTES": "16MiB",
        "CHUNK_LOCK_WAIT": "1s",
    }


@pytest.fixture(
    scope="module", params=["", "proxy_request_buffering off;"], ids=["stock", "direct"]
)
async def nginx_url(
    gateway: Gateway, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    directory = tmp_path_factory.mktemp("nginx")
    async with nginx.in_front_of(
        gateway.port, directory=directory, directives=request.param
    ) as url:
        yield url


async def send(connection: Connection, refused: Refused, *fields: str, version: str) -> None:
    """Send a request whole, before the answer is read."""
    has_key = any(field.startswith("Authorization") for field in refused.fields)
    await connection.send(
        f"{refused.method} {refused.path} HTTP/{version}",
        "Host: gateway",
        *([] if has_key else [f"Authorization: Bearer {connection.key}"]),
        f"Content-Length: {SIZE}",
        *refused.fields,
        *fields,
        body=refused.body,
    )


async def send_bytes(connection: Connection, count: int) -> None:
    for _ in range(count // MIB):
        connection.writer.write(bytes(MIB))
        await connection.writer.drain()


async def connections_of(gateway: Gateway) -> int:
    process = psutil.Process(gateway.process.process.pid)
    return sum(
        one.laddr.port == gateway.port and bool(one.raddr) for one in process.net_connections()
    )


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.__name__)
@pytest.mark.parametrize("ending", ENDING)
async def test_a_refusal_arrives_before_the_connection_ends(
    gateway: Gateway, api: Api, refusal: Callable[[Api], Awaitable[Refused]], ending: str
) -> None:
    version, fields = ENDING[ending]
    for _ in range(3):
        async with gateway.connect() as connection:
            await send(connection, await refusal(api), *fields, version=version)

            answer = await connection.answer()
            assert (answer.status, answer.json["code"]) == REFUSALS[refusal]
            assert answer.fields["connection"] == "close"
            assert await connection.rest() == b""


@pytest.mark.parametrize(
    "refusal",
    [unknown_key, unknown_upload, long_json, settled_upload],
    ids=lambda refusal: refusal.__name__,
)
async def test_a_refused_body_leaves_the_connection_usable(
    gateway: Gateway, api: Api, refusal: Callable[[Api], Awaitable[Refused]]
) -> None:
    async with gateway.connect() as connection:
        await send(connection, await refusal(api), version="1.1")
        answer = await connection.answer()
        assert (answer.status, answer.json["code"]) == REFUSALS[refusal]

        await connection.request("GET", "/api/v1/jobs")
        assert (await connection.answer()).status == 200


async def test_a_chunk_that_another_request_sends_is_refused_over_http_1_0(
    gateway: Gateway, api: Api
) -> None:
    upload_id = await api.created(size=SIZE, chunk_size=SIZE)
    async with gateway.connect() as holder, gateway.connect() as second:
        path = f"/api/v1/uploads/{upload_id}/chunks/0"
        await holder.request("PUT", path, f"Content-Length: {SIZE}", body=bytes(MIB))
        await gateway.process.first_logged("chunk.receiving")

        async def keep_sending() -> None:
            while True:
                holder.writer.write(bytes(KIB64))
                await asyncio.sleep(0.1)

        sending = asyncio.create_task(keep_sending())
        await send(second, put(upload_id), version="1.0")
        answer = await second.answer()
        sending.cancel()

    assert (answer.status, answer.json["code"]) == (423, "chunk_in_progress")


def urllib_put(url: str, *, key: str) -> int:
    """Send 8 MiB with urllib, which says `Connection: close`; return the status of the refusal."""
    request = urllib.request.Request(  # noqa: S310  # http
        f"{url}/api/v1/uploads/{uuid4()}/chunks/0",
        BODY,
        {"Authorization": f"Bearer {key}"},
        method="PUT",
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(request, timeout=30)
    with refused.value as answer:
        answer.read()
        return answer.code


async def test_urllib_gets_every_refusal(gateway: Gateway) -> None:
    for _ in range(TRIES):
        assert await asyncio.to_thread(urllib_put, gateway.url, key=gateway.key) == 404


async def test_clients_of_nginx_get_every_refusal(gateway: Gateway, nginx_url: str) -> None:
    for _ in range(TRIES):
        assert await asyncio.to_thread(urllib_put, nginx_url, key=gateway.key) == 404


async def test_a_refused_body_of_unknown_length_is_discarded_within_limits(
    gateway: Gateway, api: Api
) -> None:
    """Neither a silent client nor an endless body keeps a connection."""
    before = await connections_of(gateway)
    refused = await unknown_upload(api)
    async with gateway.connect() as silent, gateway.connect() as endless:
        for connection in (silent, endless):
            await connection.request("PUT", refused.path, "Transfer-Encoding: chunked")
            assert (await connection.answer()).status == 404
        endless.writer.write(b"40000000\r\n")
        with pytest.raises(ConnectionError):
            await send_bytes(endless, 64 * MIB)

        async with asyncio.timeout(TIMEOUT):
            while await connections_of(gateway) > before:  # noqa: ASYNC110  # another process's sockets
                await asyncio.sleep(0.05)


async def test_a_gateway_stops_while_refused_bodies_arrive(start: Start, api: Api) -> None:
    process = await start()
    refused = await unknown_upload(api)
    async with (
        Connection(port=process.port, key="wb_unknown") as silent,
        Connection(port=process.port, key="wb_unknown") as closing,
    ):
        for connection, field in ((silent, "X: y"), (closing, "Connection: close")):
            await connection.request("PUT", refused.path, f"Content-Length: {SIZE}", field)
            assert (await connection.answer()).status == 401

        async with asyncio.timeout(TIMEOUT):
            assert await process.stop() == 0
