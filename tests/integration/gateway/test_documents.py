import pytest
from sqlalchemy import update

from gateway.documents.queries import PAGES_PER_READ
from schemas.tables.documents import Entity, Page
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.documents import ingested, revision_of

pytestmark = pytest.mark.anyio


async def test_a_document_is_shown(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=["a"])

    shown = (await api.get(f"/documents/{document_id}")).json()

    assert shown["document_id"] == document_id
    assert (shown["status"], shown["page_count"], shown["language"]) == ("ingested", 1, "en")
    assert (shown["metadata"], shown["error"], shown["truncated"]) == ({"Title": "A"}, None, False)


async def test_documents_are_listed_newest_first_page_by_page(
    api: Api, transaction: BeginSession
) -> None:
    made = [await ingested(api, transaction, pages=[]) for _ in range(3)]

    first = (await api.get("/documents", limit=2)).json()
    second = (await api.get("/documents", limit=2, cursor=first["next_cursor"])).json()

    assert [one["document_id"] for one in (*first["items"], *second["items"])] == made[::-1]


async def test_the_text_is_every_page_separated_by_form_feeds(
    api: Api, transaction: BeginSession
) -> None:
    pages = ["", "zwei ☂", "", *(f"page {number}" for number in range(2 * PAGES_PER_READ)), ""]
    document_id = await ingested(api, transaction, pages=pages)

    answer = await api.get(f"/documents/{document_id}/text")

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.split("\f") == pages


async def test_a_document_without_pages_has_no_text(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=[])

    answer = await api.get(f"/documents/{document_id}/text")

    assert (answer.status_code, answer.text) == (200, "")


async def test_a_page_has_text_or_an_error(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=["one", ""])
    async with transaction() as session:
        await session.execute(
            update(Page)
            .where(Page.number == 2)
            .values(status="failed", outcome="corrupt", reason="The page is damaged.")
        )

    first = await api.get(f"/documents/{document_id}/pages/1")
    second = await api.get(f"/documents/{document_id}/pages/2")

    assert first.json() == {
        "document_id": document_id,
        "number": 1,
        "status": "read",
        "outcome": "complete",
        "reason": "",
        "text": "one",
        "error_code": None,
    }
    assert (second.json()["text"], second.json()["error_code"]) == ("", "document_corrupt")
    assert (second.json()["status"], second.json()["outcome"]) == ("failed", "corrupt")
    assert problem(await api.get(f"/documents/{document_id}/pages/3")) == (404, "not_found")
    for number in ("0", "-1", "99999999999999999999"):
        answer = await api.get(f"/documents/{document_id}/pages/{number}")
        assert problem(answer) == (400, "invalid_request")


async def test_entities_are_listed_in_reading_order(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=["one", "two"])
    revision_id = await revision_of(transaction, document_id)
    async with transaction() as session:
        session.add_all(
            Entity(
                revision_id=revision_id,
                page=page,
                ordinal=ordinal,
                label="DATE" if ordinal % 2 else "PERSON",
                text=f"{page}.{ordinal}",
                normal_form="",
                start=0,
                end=3,
            )
            for page in (1, 2)
            for ordinal in range(3)
        )

    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get(f"/documents/{document_id}/entities", limit=4, **cursor)).json()
        seen += [entity["text"] for entity in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    dates = (await api.get(f"/documents/{document_id}/entities", label="DATE")).json()["items"]

    assert seen == ["1.0", "1.1", "1.2", "2.0", "2.1", "2.2"]
    assert [entity["text"] for entity in dates] == ["1.1", "2.1"]
    nul = await api.get(f"/documents/{document_id}/entities", label="a\x00")
    assert problem(nul) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"status": "stored"}, "it is not ingested yet"),
        ({"status": "failed", "error_code": "document_encrypted"}, "document_encrypted"),
    ],
)
async def test_a_document_that_is_not_ingested_has_no_text(
    api: Api, transaction: BeginSession, values: dict[str, str], reason: str
) -> None:
    document_id = await ingested(api, transaction, pages=[], **values)

    for path in ("text", "pages/1", "entities"):
        answer = await api.get(f"/documents/{document_id}/{path}")
        assert problem(answer) == (409, "document_not_ready")
        assert reason in answer.json()["detail"]


async def test_a_failed_document_has_an_error(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(
        api,
        transaction,
        pages=[],
        status="failed",
        error_code="document_encrypted",
        error_detail="it needs a password",
    )

    shown = (await api.get(f"/documents/{document_id}")).json()

    assert shown["error"] == {
        "code": "document_encrypted",
        "detail": "it needs a password",
        "retryable": False,
    }


async def test_a_document_of_another_tenant_is_not_found(
    api: Api, stranger: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["secret"])

    for path in ("", "/text", "/pages/1", "/entities"):
        answer = await stranger.get(f"/documents/{document_id}{path}")
        assert problem(answer) == (404, "document_not_found")
    assert (await stranger.get("/documents")).json()["items"] == []
