"""Faults of staging in the bucket: a store that is down, slow, or refuses."""

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select, update

from schemas.lifecycle import StagingKind
from schemas.settings import ObjectStoreSettings
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import KIB64, Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve, Start
from tests.integration.gateway.process import api_of
from tests.integration.gateway.staged import InBucket, InDirectory
from tests.integration.http.certificates import Authority
from tests.integration.notifier.proxy import Proxy

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("staging_kind", [StagingKind.OBJECTS], indirect=True),
]

CONTENT = bytes(range(256)) * 256
"""One chunk."""


class FixedStore:
    """A store that gives every request the same answer, and records the requests."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.requests: list[bytes] = []

    @asynccontextmanager
    async def served(self, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._answer_one, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
        finally:
            server.close()
            await server.wait_closed()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        if b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.startswith(b"PUT"):
            await reader.readexactly(len(CONTENT))
        writer.write(self._answer)
        await writer.drain()
        writer.close()


def answer(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def refusal(status: str, code: str) -> bytes:
    return answer(
        status, "Content-Type: application/xml", body=f"<Error><Code>{code}</Code></Error>"
    )


def at(url: str, store: ObjectStoreSettings, **changes: object) -> ObjectStoreSettings:
    """Return the settings of the store with another URL."""
    return store.model_copy(update={"s3_endpoint_url": url, **changes})


def bundle_of(authority: Authority, directory: Path) -> Path:
    bundle = directory / "authority.pem"
    certificates = authority.client().get_ca_certs(binary_form=True)
    bundle.write_text("".join(ssl.DER_cert_to_PEM_cert(one) for one in certificates))
    return bundle


async def test_the_key_of_a_chunk_contains_its_digest(api: Api, staged: InBucket) -> None:
    upload_id = await api.created(size=len(CONTENT))
    await api.put(upload_id, 0, CONTENT)

    (key,) = staged.keys(upload_id)
    assert key.endswith(f"/{upload_id}/00000000-{hashlib.sha256(CONTENT).hexdigest()}")
    assert key.startswith("staging/")


async def test_the_object_of_a_chunk_that_arrives_after_the_expiry_is_kept_for_the_sweep(
    api: Api, transaction: BeginSession, staged: InBucket
) -> None:
    """A concurrent request with the same bytes may have recorded the same object in time."""
    upload_id = await api.created(size=len(CONTENT))

    async def slowly() -> AsyncIterator[bytes]:
        yield CONTENT[:100]
        async with transaction() as session:
            await session.execute(
                update(Upload).values(expires_at=Upload.expires_at - timedelta(days=2))
            )
        yield CONTENT[100:]

    assert problem(await api.put(upload_id, 0, slowly())) == (410, "upload_expired")
    assert staged.count(upload_id) == 1


async def test_the_row_of_an_upload_names_its_staging_backend(
    api: Api, transaction: BeginSession
) -> None:
    await api.created(size=1)

    async with transaction() as session:
        assert await session.scalar(select(Upload.staging)) == "s3"


@pytest.mark.parametrize("tls", [True, False])
async def test_a_put_carries_the_md5_and_no_trailer(
    serve: Serve, staged: InBucket, tmp_path: Path, *, tls: bool
) -> None:
    md5 = hashlib.md5(CONTENT, usedforsecurity=False)
    store = FixedStore(answer("200 OK", f'ETag: "{md5.hexdigest()}"'))
    authority = Authority()
    async with (
        store.served(tls=authority.server("localhost") if tls else None) as url,
        serve(store=at(url, staged.store, s3_ca_bundle=bundle_of(authority, tmp_path))) as api,
    ):
        upload_id = await api.created(size=len(CONTENT))
        assert (await api.put(upload_id, 0, CONTENT)).status_code == 200

    (head,) = store.requests
    assert base64.b64encode(md5.digest()) in head
    assert b"UNSIGNED-PAYLOAD" in head
    assert b"x-amz-trailer" not in head.lower()
    assert b"aws-chunked" not in head.lower()


async def test_a_store_with_an_untrusted_certificate_receives_nothing(
    serve: Serve, staged: InBucket
) -> None:
    store = FixedStore(answer("200 OK"))
    async with (
        store.served(tls=Authority().server("localhost")) as url,
        serve(store=at(url, staged.store, s3_attempts=1)) as api,
    ):
        upload_id = await api.created(size=len(CONTENT))

        assert problem(await api.put(upload_id, 0, CONTENT)) == (503, "store_unavailable")
    assert store.requests == []


@pytest.mark.parametrize(
    ("store_answer", "expected"),
    [
        (refusal("503 Slow Down", "SlowDown"), (503, "store_unavailable")),
        (refusal("500 Internal", "InternalError"), (503, "store_unavailable")),
        (answer("200 OK", f'ETag: "{"0" * 32}"'), (503, "store_unavailable")),
        (answer("202 Accepted"), (503, "store_unavailable")),
        (refusal("403 Forbidden", "AccessDenied"), (502, "store_rejected")),
    ],
)
async def test_a_chunk_that_the_store_did_not_confirm_is_refused(
    serve: Serve, staged: InBucket, store_answer: bytes, expected: tuple[int, str]
) -> None:
    store = FixedStore(store_answer)
    async with store.served() as url, serve(store=at(url, staged.store, s3_attempts=3)) as api:
        upload_id = await api.created(size=len(CONTENT))
        refused = await api.put(upload_id, 0, CONTENT)

        assert problem(refused) == expected
        assert await api.stored(upload_id) == []
        assert staged.scratch() == []
    is_retryable = expected[0] == 503
    puts = [head for head in store.requests if head.startswith(b"PUT")]
    assert len(puts) == (3 if is_retryable else 1)
    assert ("retry-after" in refused.headers) is is_retryable


async def test_chunks_are_accepted_again_after_an_outage_of_the_store(
    serve: Serve, staged: InBucket
) -> None:
    url = urlsplit(staged.store.s3_endpoint_url or "")
    async with Proxy(lambda: asyncio.open_connection(url.hostname, url.port)) as way:
        through = at(f"http://127.0.0.1:{way.port}", staged.store, s3_attempts=2)
        async with serve(store=through) as api:
            upload_id = await api.created(size=2 * KIB64)
            assert (await api.put(upload_id, 0, CONTENT)).status_code == 200
            assert (await api.http.get("/health/ready")).status_code == 200
            await way.refuse()

            assert problem(await api.put(upload_id, 1, CONTENT)) == (503, "store_unavailable")
            assert (await api.put(upload_id, 0, CONTENT)).status_code == 200, (
                "the chunk is on record"
            )
            assert await api.stored(upload_id) == [0]
            checks = (await api.probed("not_ready"))["checks"]
            assert checks["staging"].startswith("unreachable: ")
            await way.accept()

            assert (await api.put(upload_id, 1, CONTENT)).status_code == 200
            await api.probed("ready")
            assert await staged.chunks(api, upload_id) == {0: CONTENT, 1: CONTENT}


async def test_an_upload_can_be_cancelled_while_the_store_is_down(
    serve: Serve, staged: InBucket
) -> None:
    url = urlsplit(staged.store.s3_endpoint_url or "")
    async with Proxy(lambda: asyncio.open_connection(url.hostname, url.port)) as way:
        through = at(f"http://127.0.0.1:{way.port}", staged.store)
        async with serve(store=through) as api:
            upload_id = await api.sent(CONTENT)
            await way.refuse()

            cancelled = await api.ask("DELETE", f"/uploads/{upload_id}")

            assert (cancelled.status_code, staged.count(upload_id)) == (200, 1)
            await way.accept()
            repeated = await api.ask("DELETE", f"/uploads/{upload_id}")
    assert repeated.json() == cancelled.json()
    assert staged.count(upload_id) == 0


async def test_an_upload_continues_after_a_change_of_staging(
    serve: Serve, staged: InBucket, staging_dir: Path
) -> None:
    async with serve(staging="directory", staging_dir=staging_dir) as api:
        before = await api.created(size=2 * KIB64)
        assert (await api.put(before, 0, CONTENT)).status_code == 200
    async with serve(staging_dir=staging_dir) as api:
        after = await api.created(size=2 * KIB64)
        for upload_id in (before, after):
            assert (await api.put(upload_id, 1, CONTENT)).status_code == 200
    async with serve(staging="directory", staging_dir=staging_dir) as api:
        assert (await api.put(after, 0, CONTENT)).status_code == 200

        assert await InDirectory(staging_dir).chunks(api, before) == {0: CONTENT, 1: CONTENT}
        assert await staged.chunks(api, after) == {0: CONTENT, 1: CONTENT}


async def test_an_upload_in_unreachable_staging_is_answered_with_503(
    serve: Serve, staging_dir: Path
) -> None:
    async with serve(staging="directory", staging_dir=staging_dir) as api:
        upload_id = await api.created(size=len(CONTENT))
    async with serve() as api:
        refused = await api.put(upload_id, 0, CONTENT)

    assert problem(refused) == (503, "unavailable")
    assert "directory" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0


async def test_a_gateway_that_stages_in_a_directory_needs_no_object_store(
    start: Start, make_key: MakeKey, staging_dir: Path
) -> None:
    nothing = dict.fromkeys(("S3_BUCKET", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"), "")
    process = await start(**nothing, STAGING="directory", STAGING_DIR=str(staging_dir))
    async with api_of(process, await make_key()) as api:
        await api.sent(CONTENT)
