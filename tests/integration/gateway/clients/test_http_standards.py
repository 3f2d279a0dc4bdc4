"""What the standards of HTTP ask of a server, for clients that rely on it."""

import asyncio
import http.client
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from gateway.administration import keys
from schemas.api.scopes import Scope
from tests.integration.gateway.api import MIB, Api, content_digest
from tests.integration.gateway.clients.conftest import Gateway
from tests.integration.gateway.documents import ingested

pytestmark = pytest.mark.anyio

PER_REQUEST = {"date", "ratelimit", "transfer-encoding", "x-request-id"}
"""Fields that differ from request to request, or that belong to the body."""


@pytest.fixture(scope="module")
def gateway_settings() -> Mapping[str, str]:
    return {"REQUEST_HEAD_TIMEOUT": "1s", "IDLE_CONNECTIONS_MAX": "50", "WAIT_MAX": "30s"}


async def curl(*arguments: str) -> tuple[int, bytes]:
    """Run curl; return its exit code and its output."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output


# HTTP/1.0


async def test_http_1_0_gets_the_events_of_a_job_without_chunks(gateway: Gateway, api: Api) -> None:
    upload_id, job_id = await api.finalized()
    async with gateway.connect() as connection:
        await connection.request("GET", f"/api/v1/jobs/{job_id}/events", version="1.0")
        status, fields = await connection.head()
        assert (status, fields.get("transfer-encoding")) == (200, None)
        assert fields["connection"] == "close"
        assert await connection.reader.readline() == b"retry: 1000\n"
        await api.ask("DELETE", f"/uploads/{upload_id}")

        events = await connection.rest()
    assert b"event: cancelled\n" in events
    assert events.endswith(b"}\n\n")


async def test_http_1_0_gets_a_text_without_chunks(gateway: Gateway, api: Api) -> None:
    pages = [f"page {number}" for number in range(40)]
    document_id = await ingested(api, gateway.transaction, pages=pages)
    async with gateway.connect() as connection:
        await connection.request("GET", f"/api/v1/documents/{document_id}/text", version="1.0")
        answer = await connection.answer()

    assert "transfer-encoding" not in answer.fields
    assert answer.body.decode() == "\f".join(pages)


# Heads that are not valid


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (("GET /health/live HTTP/1.1",), 400),
        (("GET /health/live HTTP/1.1", "Host: a", "Host: b"), 400),
        (("GET /health/live HTTP/1.1", "Host: a", "Host: a"), 400),
        (("GET /health/live HTTP/1.1", "Host: a/b"), 400),
        (("GET /health/live HTTP/0.9",), 400),
        (("GET /health/live",), 400),
        (("GET /health/live HTTP/2.0", "Host: a"), 505),
        (("GET /health/live HTTP/3.7", "Host: a"), 505),
        (("GET /health/live HTTP/1.1", "Host: a", "No colon"), 400),
    ],
    ids=lambda value: "|".join(value) if isinstance(value, tuple) else None,
)
async def test_a_head_that_is_not_valid_is_refused_with_a_problem(
    gateway: Gateway, head: tuple[str, ...], status: int
) -> None:
    async with gateway.connect() as connection:
        await connection.send(*head)
        answer = await connection.answer()

        assert answer.status == status
        assert answer.fields["content-type"] == "application/problem+json"
        assert answer.json["code"] == "invalid_request"
        assert answer.json["request_id"] == answer.fields["x-request-id"]
        assert await connection.rest() == b""


async def test_http_1_0_needs_no_host(gateway: Gateway) -> None:
    async with gateway.connect() as connection:
        await connection.send("GET /health/live HTTP/1.0")
        assert (await connection.answer()).status == 200


async def test_a_refusal_of_a_head_comes_after_the_earlier_answer(
    gateway: Gateway, api: Api
) -> None:
    _, job_id = await api.finalized()
    async with gateway.connect() as connection:
        await connection.request("GET", f"/api/v1/jobs/{job_id}?wait=1")
        await connection.send("GET /health/live HTTP/1.1")

        assert (await connection.answer()).json["job_id"] == job_id
        assert (await connection.answer()).status == 400


# One side of the connection closed


async def test_a_complete_request_is_answered_after_a_half_close(
    gateway: Gateway, api: Api
) -> None:
    content = bytes(MIB)
    upload_id = await api.created(size=MIB, chunk_size=MIB)
    async with gateway.connect() as connection:
        await connection.request(
            "PUT",
            f"/api/v1/uploads/{upload_id}/chunks/0",
            f"Content-Length: {MIB}",
            body=content,
        )
        connection.writer.write_eof()

        assert (await connection.answer()).status == 200
        assert await connection.rest() == b""
    assert await api.stored(upload_id) == [0]


async def test_pipelined_requests_are_answered_after_a_half_close(gateway: Gateway) -> None:
    async with gateway.connect() as connection:
        for _ in range(3):
            await connection.request("GET", "/api/v1/jobs")
        connection.writer.write_eof()

        assert [(await connection.answer()).status for _ in range(3)] == [200, 200, 200]
        assert await connection.rest() == b""


async def test_a_wait_ends_at_a_half_close(gateway: Gateway, api: Api) -> None:
    _, job_id = await api.finalized()
    async with gateway.connect() as connection:
        await connection.request("GET", f"/api/v1/jobs/{job_id}?wait=30")
        connection.writer.write_eof()

        assert (await connection.answer()).json["status"] == "queued"


async def test_a_half_close_within_a_body_is_a_disconnect(gateway: Gateway, api: Api) -> None:
    upload_id = await api.created(size=MIB, chunk_size=MIB)
    path = f"/api/v1/uploads/{upload_id}/chunks/0"
    received = len(gateway.process.logged("chunk.receiving"))
    taken_over = len(gateway.process.logged("chunk.taken_over"))
    async with gateway.connect() as connection:
        await connection.request("PUT", path, f"Content-Length: {MIB}", body=bytes(MIB // 2))
        await gateway.process.logged_times("chunk.receiving", count=received + 1)
        connection.writer.write_eof()
        await connection.rest()

        stored = await api.put(upload_id, 0, bytes(MIB), content_digest(bytes(MIB)))
    assert stored.status_code == 200
    assert len(gateway.process.logged("chunk.taken_over")) == taken_over, "nothing held the chunk"


# HEAD


async def test_head_is_answered_wherever_get_is(api: Api) -> None:
    upload_id, job_id = await api.finalized()
    paths = [
        *("/health/live", "/health/ready", "/schema", "/schema/openapi.json"),
        *("/api/v1/jobs", f"/api/v1/jobs/{job_id}", f"/api/v1/uploads/{upload_id}"),
        *("/api/v1/webhooks", "/api/v1/documents", f"/api/v1/uploads/{uuid4()}", "/nowhere"),
    ]
    for path in paths:
        got = await api.http.get(path, headers=api.authorization)
        head = await api.http.head(path, headers=api.authorization)

        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert fields_of(head) == fields_of(got), path


async def test_head_needs_the_key_and_the_scope_of_get(gateway: Gateway, api: Api) -> None:
    async with gateway.transaction() as session:
        other = await keys.create(
            session, tenant="acme", scopes=(Scope.WEBHOOKS_WRITE,), actor="test"
        )

    assert (await api.http.head("/api/v1/jobs")).status_code == 401
    assert (await api.of(other.key).ask("HEAD", "/jobs")).status_code == 403


async def test_head_of_a_stream_or_a_wait_is_answered_at_once(api: Api) -> None:
    _, job_id = await api.finalized()
    for path in (f"/jobs/{job_id}/events", f"/jobs/{job_id}?wait=30"):
        async with asyncio.timeout(5):
            answer = await api.ask("HEAD", path)

        assert (answer.status_code, answer.content) == (200, b"")
    assert (await api.ask("HEAD", f"/jobs/{job_id}/events")).headers["content-type"] == (
        "text/event-stream; charset=utf-8"
    )


async def test_head_of_a_text_cuts_off_no_query(gateway: Gateway, api: Api) -> None:
    document_id = await ingested(api, gateway.transaction, pages=["a", "b"])
    got = await api.get(f"/documents/{document_id}/text")

    heads = [await api.ask("HEAD", f"/documents/{document_id}/text") for _ in range(5)]

    assert [fields_of(head) for head in heads] == [fields_of(got)] * 5
    # The driver warns of a query that is cut off, and closes its connection.
    assert "query cancellation" not in gateway.process.log_file.read_text()


async def test_a_path_names_head_among_its_methods(api: Api) -> None:
    options = await api.ask("OPTIONS", "/jobs")
    refused = await api.ask("PUT", "/jobs")

    assert options.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert refused.status_code == 405
    allowed = {method.strip() for method in refused.headers["allow"].split(",")}
    assert allowed == {"GET", "HEAD", "OPTIONS", "POST"}


async def test_head_by_curl_leaves_the_connection_usable(gateway: Gateway) -> None:
    live = f"{gateway.url}/health/live"
    code, output = await curl("--head", live, live)

    assert code == 0
    assert output.count(b"HTTP/1.1 200 OK") == 2


# Other clients


async def test_an_offer_of_http_2_is_ignored(gateway: Gateway, api: Api, tmp_path: Path) -> None:
    """Java's client and `curl --http2` offer it with every request, also with a body."""
    content = bytes(MIB)
    upload_id = await api.created(size=MIB, chunk_size=MIB)
    path = f"/api/v1/uploads/{upload_id}/chunks/0"
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    async with gateway.connect() as connection:
        for _ in range(2):
            await connection.request("PUT", path, *offer, f"Content-Length: {MIB}", body=content)
            assert (await connection.answer()).status == 200

    file = tmp_path / "chunk"
    file.write_bytes(content)
    code, output = await curl(
        *("--http2", "--oauth2-bearer", gateway.key, "--upload-file", str(file)),
        f"{gateway.url}{path}",
    )
    assert (code, b'"sha256"' in output) == (0, True), output


async def test_http_client_reuses_a_connection_after_a_refusal(gateway: Gateway) -> None:
    def talk() -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        statuses = []
        for _ in range(3):
            connection.request(
                "PUT", f"/api/v1/uploads/{uuid4()}/chunks/0", bytes(MIB), gateway.authorization
            )
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        return statuses

    assert await asyncio.to_thread(talk) == [404, 404, 404]


async def test_a_refusal_in_place_of_100_continue_closes_the_connection(gateway: Gateway) -> None:
    async with gateway.connect() as connection:
        path = f"/api/v1/uploads/{uuid4()}/chunks/0"
        await connection.request("PUT", path, f"Content-Length: {MIB}", "Expect: 100-continue")
        answer = await connection.answer()

        assert (answer.status, answer.fields["connection"]) == (404, "close")
        assert await connection.rest() == b""


# Slow clients


async def test_a_slow_head_ends(gateway: Gateway) -> None:
    async with gateway.connect() as connection:

        async def trickle() -> None:
            for byte in b"GET /health/live HTTP/1.1\r\n" + b"x" * 100:
                connection.writer.write(bytes([byte]))
                await asyncio.sleep(0.1)

        trickling = asyncio.create_task(trickle())
        answer = await connection.answer()
        trickling.cancel()

    assert answer.status == 408


async def test_a_connection_without_a_request_ends(gateway: Gateway) -> None:
    async with gateway.connect() as connection:
        assert await connection.rest() == b""


async def test_many_idle_connections_leave_room_for_requests(gateway: Gateway) -> None:
    process = psutil.Process(gateway.process.process.pid)
    before = process.num_fds()
    idle = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(200)]
    try:
        async with gateway.connect() as connection:
            await connection.request("GET", "/api/v1/jobs")
            assert (await connection.answer()).status == 200
        assert process.num_fds() - before <= 60
    finally:
        for _, writer in idle:
            writer.transport.abort()


def fields_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in PER_REQUEST}
