from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import update

from gateway.documents import listing
from schemas.ids import DocumentId
from schemas.tables.documents import Document
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey
from tests.integration.gateway.documents import ingested

pytestmark = pytest.mark.anyio

BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)

# Named by what distinguishes each from the first.
ROWS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "failed": {"status": "failed", "error_code": "document_corrupt", "outcome": "corrupt"},
    "partial": {"status": "partial", "outcome": "partial"},
    "german": {"language": "de"},
    "html": {"content_type": "Text/HTML; charset=utf-8"},
    "other bytes": {"sha256": "1" * 64},
    "named": {"filename": "Z_100%.pdf", "upload": {"metadata": {"case": "7", "kind": "x"}}},
}


@pytest.fixture(scope="module")
async def ids(shared_api: Api, shared_transaction: BeginSession) -> dict[str, str]:
    """The documents of `ROWS`, one for each day from `BEGIN` on."""
    found = {}
    for day, (name, values) in enumerate(ROWS.items()):
        created_at = BEGIN + timedelta(days=day)
        found[name] = await ingested(
            shared_api, shared_transaction, pages=["x"], **{"created_at": created_at, **values}
        )
    return found


async def listed(api: Api, **query: Any) -> list[str]:  # noqa: ANN401  # any query
    """Return the ids of all pages of a list."""
    seen: list[str] = []
    while True:
        answer = await api.get("/documents", **query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        seen += [document["document_id"] for document in page["items"]]
        if page["next_cursor"] is None:
            return seen
        query["cursor"] = page["next_cursor"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "failed"}, ["failed"]),
        ({"status": "partial"}, ["partial"]),
        ({"outcome": "corrupt"}, ["failed"]),
        ({"language": "de"}, ["german"]),
        ({"language": "DE"}, ["german"]),
        ({"content_type": "text/html"}, ["html"]),
        ({"sha256": "1" * 64}, ["other bytes"]),
        ({"filename_prefix": "Z_100%"}, ["named"]),
        ({"metadata": "case:7"}, ["named"]),
        ({"metadata": ["case:7", "kind:x"]}, ["named"]),
        ({"metadata": ["case:7", "kind:y"]}, []),
        ({"created_after": "2026-01-05T12:00:00Z"}, ["named", "other bytes"]),
        ({"created_before": "2026-01-02T00:00:00"}, ["plain"]),
        ({"created_before": "2026-01-02T12:00:00+13:00"}, ["plain"]),
        ({"status": "ingested", "language": "de"}, ["german"]),
        ({"status": "ingested", "sha256": "0" * 64, "content_type": "TEXT/html"}, ["html"]),
        ({"filename_prefix": "Z", "created_after": "2027-01-01T00:00:00Z"}, []),
        ({"status": "stored"}, []),
    ],
)
async def test_a_filter_selects_documents(
    shared_api: Api, ids: dict[str, str], query: dict[str, Any], expected: list[str]
) -> None:
    names = {document_id: name for name, document_id in ids.items()}

    assert [names[each] for each in await listed(shared_api, **query)] == expected


@pytest.mark.parametrize(
    "query",
    [
        {"language": "en"},
        {"filename_prefix": "a"},
        {"language": "en", "status": "ingested"},
        {"filename_prefix": "a", "language": "en", "metadata": "x:y"},
    ],
)
async def test_the_pages_of_a_filtered_list_hold_every_document_once(
    shared_api: Api, ids: dict[str, str], query: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await listed(shared_api, **query)
    assert len(ids) > len(expected) >= (0 if "metadata" in query else 3)
    monkeypatch.setattr(listing, "SCANNED_MAX", 2)

    for limit in (1, 2):
        assert await listed(shared_api, **query, limit=limit) == expected


async def test_a_list_by_prefix_is_ordered_by_name(api: Api, transaction: BeginSession) -> None:
    for name in ("bb", "ba", "b", "c", "B", "bä"):
        await ingested(api, transaction, pages=[], filename=name)

    first = (await api.get("/documents", filename_prefix="b", limit=2)).json()
    rest = (await api.get("/documents", filename_prefix="b", cursor=first["next_cursor"])).json()

    names = [document["filename"] for document in (*first["items"], *rest["items"])]
    assert names == ["b", "ba", "bb", "bä"]


async def test_the_language_of_a_list_follows_the_revision(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=[], language="de")
    async with transaction() as session:
        await session.execute(
            update(Document)
            .where(Document.id == DocumentId(UUID(document_id)))
            .values(revision_id=None)
        )

    assert await listed(api, language="de") == []


@pytest.mark.parametrize(
    "query",
    [
        {"status": "ready"},
        {"outcome": "x"},
        {"sha256": "xyz"},
        {"filename_prefix": "a\x00"},
        {"created_after": "yesterday"},
        {"created_before": "0.5"},
        {"metadata": "no colon"},
        {"metadata": ["a:b"] * 9},
        {"filename_prefix": "a", "cursor": "WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsMV0"},
    ],
)
async def test_an_invalid_filter_is_refused(shared_api: Api, query: dict[str, Any]) -> None:
    assert problem(await shared_api.get("/documents", **query)) == (400, "invalid_request")


async def test_a_filter_finds_no_document_of_another_tenant(
    shared_api: Api, make_shared_key: MakeKey, ids: dict[str, str]
) -> None:
    stranger = shared_api.of(await make_shared_key(tenant="globex"))
    assert len(ids) == len(ROWS)
    for query in ({}, {"status": "ingested"}, {"filename_prefix": "a"}, {"sha256": "0" * 64}):
        assert await listed(stranger, **query) == []
