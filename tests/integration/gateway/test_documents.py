from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, update

from gateway.context import Context
from gateway.documents.errors import RevisionGone
from gateway.documents.queries import PAGES_PER_READ, text_of
from schemas.lifecycle import PassageKind
from schemas.policy.passage_ordinals import ordinal_of
from schemas.spans import SPAN_KINDS, SpanKind
from schemas.tables.documents import Document, Entity, Page, Revision
from schemas.tables.jobs import Job
from schemas.tables.passages import Passage
from schemas.tables.uploads import Chunk, Upload
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.documents import ingested, revision_of

pytestmark = pytest.mark.anyio


async def test_a_document_is_shown(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=["a"])

    shown = (await api.get(f"/documents/{document_id}")).json()

    assert shown["document_id"] == document_id
    assert (shown["status"], shown["page_count"], shown["language"]) == ("ingested", 1, "en")
    assert (shown["metadata"], shown["error"], shown["truncated"]) == ({"Title": "A"}, None, False)


async def test_a_document_is_read_after_its_job_is_deleted(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["a"], status="ingested")
    before = (await api.get(f"/documents/{document_id}")).json()
    async with transaction() as session:
        await session.execute(update(Upload).values(status="stored"))
        await session.execute(delete(Chunk))
        await session.execute(delete(Job))

    assert (await api.get(f"/documents/{document_id}")).json() == before
    assert (await api.get(f"/documents/{document_id}/text")).text == "a"
    upload = f"/uploads/{before['upload_id']}"
    manifest = (await api.get(upload)).json()
    assert (manifest["status"], manifest["received_bytes"]) == ("stored", manifest["size"])
    assert problem(await api.get(f"{upload}/status")) == (404, "job_not_found")
    assert problem(await api.get(f"/jobs/{before['job_id']}")) == (404, "job_not_found")
    again = await api.ask("POST", f"/documents/{document_id}/reprocess", json={})
    assert again.status_code == 202, again.text


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

    shown = first.json()
    assert (shown["number"], shown["text"], shown["status"]) == (1, "one", "read")
    assert (shown["outcome"], shown["reason"], shown["error_code"]) == ("complete", "", None)
    assert not {"lines", "sentences"} & shown.keys()
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


async def test_passages_are_listed_in_reading_order_with_their_text(
    api: Api, transaction: BeginSession
) -> None:
    pages = ["zwölf Boote", "five ships ☂ sail"]
    document_id = await ingested(api, transaction, pages=pages)
    revision_id = await revision_of(transaction, document_id)
    texts = [(1, 0, 0, 5), (1, 1, 6, 11), (2, 0, 5, 12), (2, 1, 11, 17)]
    table = (2, ordinal_of(table=3, index=1), 0, 0)
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        session.add_all(
            Passage(
                revision_id=revision_id,
                page=page,
                ordinal=ordinal,
                tenant_id=document.tenant_id,
                document_id=document.id,
                kind=PassageKind.TABLE if ordinal == table[1] else PassageKind.TEXT,
                start=start,
                end=end,
                digest=UUID(int=0),
                text="ship | port" if ordinal == table[1] else None,
                tokens=3,
                search="",
            )
            for page, ordinal, start, end in [*texts, table]
        )

    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get(f"/documents/{document_id}/passages", limit=3, **cursor)).json()
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}

    places = [(one["page"], one["ordinal"], one["start"], one["end"]) for one in seen]
    assert places == [*texts, table]
    shown = [pages[page - 1][start:end] for page, _, start, end in texts]
    assert [one["text"] for one in seen] == [*shown, "ship | port"]
    assert [one["kind"] for one in seen] == ["text"] * 4 + ["table"]
    assert [one["table"] for one in seen] == [None] * 4 + [3]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"status": "stored"}, "no page is read yet"),
        ({"status": "failed", "error_code": "document_encrypted"}, "document_encrypted"),
    ],
)
async def test_a_document_that_is_not_ingested_has_no_text(
    api: Api, transaction: BeginSession, values: dict[str, Any], reason: str
) -> None:
    document_id = await ingested(api, transaction, pages=[], **values)

    for path in ("text", "pages/1", "entities", "passages"):
        answer = await api.get(f"/documents/{document_id}/{path}")
        assert problem(answer) == (409, "document_not_ready")
        assert reason in answer.json()["detail"]


async def test_a_failed_document_has_an_error(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(
        api,
        transaction,
        pages=[],
        status="failed",
        outcome="encrypted",
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

    for path in (
        "",
        "/text",
        "/pages/1",
        "/pages/1/image",
        "/entities",
        "/passages",
        "/outline",
        "/attachments",
        "/file",
    ):
        answer = await stranger.get(f"/documents/{document_id}{path}")
        assert problem(answer) == (404, "document_not_found")
    assert (await stranger.get("/documents")).json()["items"] == []


async def test_a_document_shows_what_is_missing(api: Api, transaction: BeginSession) -> None:
    reason = {"outcome": "corrupt", "pages": [[2, 2]], "page_count": 1, "reason": "It is damaged."}
    document_id = await ingested(
        api,
        transaction,
        pages=["one", ""],
        status="partial",
        outcome="partial",
        reasons=[reason],
        pages_read=1,
        pages_failed=1,
        title="A title",
        key_phrases=["a phrase"],
        language_confidence=0.75,
        warnings=2,
        truncated=True,
    )

    shown = (await api.get(f"/documents/{document_id}")).json()

    assert shown["reasons"] == [reason]
    assert {
        name: shown[name]
        for name in ("status", "outcome", "pages_read", "pages_failed", "title", "key_phrases")
    } == {
        "status": "partial",
        "outcome": "partial",
        "pages_read": 1,
        "pages_failed": 1,
        "title": "A title",
        "key_phrases": ["a phrase"],
    }
    assert (shown["language_confidence"], shown["warnings"], shown["truncated"]) == (0.75, 2, True)
    assert (shown["revision"], shown["error"]) == (1, None)


async def test_the_first_reading_shows_title_and_page_count_before_its_pages(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(
        api, transaction, pages=[], status="reading", page_count=7, title="Early"
    )

    shown = (await api.get(f"/documents/{document_id}")).json()
    [listed] = (await api.get("/documents")).json()["items"]

    assert (shown["status"], shown["page_count"], shown["title"]) == ("reading", 7, "Early")
    assert shown["revision"] is None
    assert listed == shown
    assert problem(await api.get(f"/documents/{document_id}/text")) == (409, "document_not_ready")


async def test_pages_are_readable_while_others_wait_for_ocr(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(
        api, transaction, pages=["one", ""], status="reading", is_shown=True
    )
    async with transaction() as session:
        await session.execute(
            update(Page).where(Page.number == 2).values(status="needs_ocr", outcome="needs_ocr")
        )

    text = await api.get(f"/documents/{document_id}/text")
    waiting = (await api.get(f"/documents/{document_id}/pages/2")).json()

    assert text.text == "one\f"
    assert (waiting["status"], waiting["outcome"]) == ("needs_ocr", "needs_ocr")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"page_from": 2}, "b\fc"),
        ({"page_to": 2}, "a\fb"),
        ({"page_from": 2, "page_to": 2}, "b"),
        ({"page_from": 3, "page_to": 2}, ""),
        ({"page_from": 9}, ""),
    ],
)
async def test_the_text_of_some_pages_is_read(
    shared_api: Api, shared_transaction: BeginSession, query: dict[str, int], expected: str
) -> None:
    document_id = await ingested(shared_api, shared_transaction, pages=["a", "b", "c"])

    assert (await shared_api.get(f"/documents/{document_id}/text", **query)).text == expected


async def test_the_text_of_a_deleted_revision_does_not_end_as_if_complete(
    api: Api, context: Context, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["x"] * (PAGES_PER_READ + 1))
    revision_id = await revision_of(transaction, document_id)
    text = text_of(context.database, revision_id, first=1, last=PAGES_PER_READ + 1)
    await anext(text)
    async with transaction() as session:
        await session.execute(delete(Revision).where(Revision.id == revision_id))

    with pytest.raises(RevisionGone):
        _ = [page async for page in text]


async def test_a_page_shows_its_marks_and_on_request_its_lines_and_sentences(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["Report\nOne. Two."], page_labels=["iv"])
    async with transaction() as session:
        await session.execute(
            update(Page).values(
                sentences=[7, 11, 12, 16],
                lines=[0, 6, 10, 20, 30, 40, 7, 16, 10, 50, 90, 60],
                spans=[SPAN_KINDS.index(SpanKind.HEADER), 0, 6],
                engine="pdfium",
                engine_version="1",
                language="en",
                language_confidence=0.5,
                width_points=595.0,
            )
        )
    path = f"/documents/{document_id}/pages/1"

    plain = (await api.get(path)).json()
    full = (await api.get(path, include="lines,sentences")).json()

    assert plain["spans"] == [{"kind": "header", "start": 0, "end": 6}]
    assert (plain["label"], plain["engine"], plain["language"]) == ("iv", "pdfium", "en")
    assert (plain["language_confidence"], plain["width_points"]) == (0.5, 595.0)
    assert full["sentences"] == [{"start": 7, "end": 11}, {"start": 12, "end": 16}]
    assert full["lines"][1] == {
        "start": 7,
        "end": 16,
        "box": {"left": 10, "top": 50, "right": 90, "bottom": 60},
    }
    assert {**full, "lines": 0, "sentences": 0} == {**plain, "lines": 0, "sentences": 0}
    assert problem(await api.get(path, include="lines,words")) == (400, "invalid_request")


async def test_an_entity_has_its_place_on_the_page(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=["New\nYork is", "Rome"])
    revision_id = await revision_of(transaction, document_id)
    async with transaction() as session:
        await session.execute(
            update(Page)
            .where(Page.number == 1)
            .values(lines=[0, 3, 80, 20, 95, 30, 4, 11, 10, 32, 60, 42])
        )
        for ordinal, (page, start, end) in enumerate([(1, 0, 8), (1, 9, 11), (2, 0, 4)]):
            session.add(
                Entity(
                    revision_id=revision_id,
                    page=page,
                    ordinal=ordinal,
                    label="GPE",
                    text="",
                    normal_form="",
                    start=start,
                    end=end,
                )
            )

    items = (await api.get(f"/documents/{document_id}/entities")).json()["items"]

    assert [entity["box"] for entity in items] == [
        {"left": 10, "top": 20, "right": 95, "bottom": 42},
        {"left": 10, "top": 32, "right": 60, "bottom": 42},
        None,
    ]


async def test_outline_and_attachments_are_shown(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(
        api,
        transaction,
        pages=["a"],
        outline=[{"title": "One", "level": 0, "page": 1}, {"title": "Two", "level": 1}],
        attachments=[{"name": "a.xml", "size_bytes": 7}],
        structure_is_cut=True,
    )

    outline = (await api.get(f"/documents/{document_id}/outline")).json()
    attachments = (await api.get(f"/documents/{document_id}/attachments")).json()

    assert outline["items"] == [
        {"title": "One", "level": 0, "page": 1},
        {"title": "Two", "level": 1, "page": None},
    ]
    assert outline["is_cut"]
    assert attachments["items"] == [
        {"name": "a.xml", "size_bytes": 7, "media_type": None, "description": None}
    ]


async def test_an_outline_that_is_not_read_yet_is_null(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=[], status="reading")

    for path in ("outline", "attachments"):
        answer = await api.get(f"/documents/{document_id}/{path}")
        assert (answer.status_code, answer.json()["items"]) == (200, None)
