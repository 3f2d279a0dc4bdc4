from collections.abc import AsyncIterator, Mapping
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import delete
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from schemas import object_keys
from schemas.ids import DocumentId
from schemas.runtime import s3
from schemas.settings import ObjectStoreSettings
from schemas.tables.documents import Document
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve
from tests.integration.gateway.documents import ingested, revision_of

pytestmark = pytest.mark.anyio

CONTENT = b"%PDF-1.7 the bytes of the file"
NAME = "Bericht für 契約.pdf"


@pytest.fixture
async def api(serve: Serve, object_store_settings: ObjectStoreSettings) -> AsyncIterator[Api]:
    """A client of acme, for a gateway that stages in its directory and can sign for the store."""
    async with serve(store=object_store_settings) as api:
        yield api


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of the store, without credentials."""
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


async def stored(
    api: Api,
    transaction: BeginSession,
    store: ObjectStoreSettings,
    *,
    filename: str = NAME,
    content_type: str = "application/pdf",
) -> str:
    """Put an object into the bucket and add its document; return the id of the document."""
    key = f"originals/{uuid4()}/{uuid4()}"
    client = s3.client(store)
    client.put_object(
        Bucket=store.s3_bucket, Key=key, Body=CONTENT, ContentType="application/octet-stream"
    )
    client.close()
    return await ingested(
        api, transaction, pages=[], object_key=key, filename=filename, content_type=content_type
    )


async def link(api: Api, document_id: str, *, method: str = "GET") -> str:
    answer = await api.ask(method, f"/documents/{document_id}/file")
    assert answer.status_code == 307, answer.text
    assert answer.headers["cache-control"] == "no-store"
    location: str = answer.headers["location"]
    return location


def shown(answer: httpx.Response) -> Mapping[str, str]:
    return {name: answer.headers[name] for name in ("content-type", "content-disposition")}


async def test_a_file_is_fetched_from_the_store_with_its_name_and_type(
    api: Api,
    transaction: BeginSession,
    object_store_settings: ObjectStoreSettings,
    client: httpx.AsyncClient,
) -> None:
    document_id = await stored(api, transaction, object_store_settings)

    answer = await client.get(await link(api, document_id))

    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert shown(answer) == {
        "content-type": "application/pdf",
        "content-disposition": 'inline; filename="Bericht fur __.pdf"; '
        "filename*=UTF-8''Bericht%20f%C3%BCr%20%E5%A5%91%E7%B4%84.pdf",
    }


async def test_a_part_of_a_file_can_be_fetched(
    api: Api,
    transaction: BeginSession,
    object_store_settings: ObjectStoreSettings,
    client: httpx.AsyncClient,
) -> None:
    document_id = await stored(api, transaction, object_store_settings)

    part = await client.get(await link(api, document_id), headers={"Range": "bytes=0-3"})

    assert (part.status_code, part.content) == (206, b"%PDF")


async def test_the_link_of_head_is_for_head(
    api: Api,
    transaction: BeginSession,
    object_store_settings: ObjectStoreSettings,
    client: httpx.AsyncClient,
) -> None:
    document_id = await stored(api, transaction, object_store_settings)

    answer = await client.head(await link(api, document_id, method="HEAD"))

    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(CONTENT)))


async def test_html_is_downloaded_as_bytes(
    api: Api,
    transaction: BeginSession,
    object_store_settings: ObjectStoreSettings,
    client: httpx.AsyncClient,
) -> None:
    document_id = await stored(
        api, transaction, object_store_settings, filename="a.html", content_type="text/html"
    )

    answer = await client.get(await link(api, document_id))

    assert shown(answer) == {
        "content-type": "application/octet-stream",
        "content-disposition": 'attachment; filename="a.html"',
    }


async def test_a_changed_link_opens_nothing(
    serve: Serve,
    transaction: BeginSession,
    object_store_settings: ObjectStoreSettings,
    client: httpx.AsyncClient,
) -> None:
    async with serve(store=object_store_settings, document_link_ttl=60) as api:
        document_id = await stored(api, transaction, object_store_settings)
        url = await link(api, document_id)

    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["60"]
    for changed in (
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"),
        url.replace("inline", "attachment"),
        url.partition("?")[0],
    ):
        assert (await client.get(changed)).status_code in {400, 403}


async def test_a_link_expires(
    serve: Serve,
    transaction: BeginSession,
    object_store_settings: ObjectStoreSettings,
    client: httpx.AsyncClient,
) -> None:
    async with serve(store=object_store_settings, document_link_ttl=1) as api:
        document_id = await stored(api, transaction, object_store_settings)
        url = await link(api, document_id)

    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(AssertionError),
        stop=stop_after_delay(20),
        wait=wait_fixed(0.2),
        reraise=True,
    ):
        with attempt:
            assert (await client.get(url)).status_code == 403


async def test_a_link_has_the_public_endpoint_of_the_store(
    serve: Serve,
    transaction: BeginSession,
    object_store_settings: ObjectStoreSettings,
    client: httpx.AsyncClient,
) -> None:
    own = urlsplit(object_store_settings.s3_endpoint_url or "")
    public_url = f"http://localhost:{own.port}"
    async with serve(store=object_store_settings, s3_public_url=public_url) as api:
        document_id = await stored(api, transaction, object_store_settings)
        url = await link(api, document_id)

    assert url.startswith(f"{public_url}/{object_store_settings.s3_bucket}/originals/")
    assert (await client.get(url)).content == CONTENT


async def test_a_file_of_another_tenant_or_a_purged_file_is_not_found(
    api: Api,
    make_key: MakeKey,
    transaction: BeginSession,
    object_store_settings: ObjectStoreSettings,
) -> None:
    document_id = await stored(api, transaction, object_store_settings)
    stranger = api.of(await make_key(tenant="globex"))

    assert problem(await stranger.get(f"/documents/{document_id}/file")) == (
        404,
        "document_not_found",
    )
    async with transaction() as session:
        await session.execute(delete(Document).where(Document.id == DocumentId(UUID(document_id))))
    assert problem(await api.get(f"/documents/{document_id}/file")) == (404, "document_not_found")


async def test_a_gateway_without_a_store_makes_no_link(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve() as api:
        document_id = await ingested(api, transaction, pages=[])

        answer = await api.get(f"/documents/{document_id}/file")

    assert problem(answer) == (503, "unavailable")
    assert "S3_BUCKET" in answer.json()["detail"]


async def test_the_thumbnail_is_the_image_of_the_first_page(
    api: Api,
    transaction: BeginSession,
    object_store_settings: ObjectStoreSettings,
    client: httpx.AsyncClient,
) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"], has_thumbnail=True)
    revision_id = await revision_of(transaction, document_id)
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
    store = s3.client(object_store_settings)
    store.put_object(
        Bucket=object_store_settings.s3_bucket,
        Key=object_keys.thumbnail(document.upload_id, revision_id),
        Body=b"\x89PNG",
    )
    store.close()

    answer = await api.get(f"/documents/{document_id}/pages/1/image")
    picture = await client.get(answer.headers["location"])

    assert answer.status_code == 307
    assert (picture.content, picture.headers["content-type"]) == (b"\x89PNG", "image/png")
