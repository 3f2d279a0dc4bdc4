"""Tables and figures of documents over HTTP."""

import csv
import io
import json
from uuid import UUID

import httpx
import msgspec
import pytest
from sqlalchemy import select

from pipeline.ingest.extractors.layout import FigureFound, TableFound
from schemas import object_keys
from schemas.events.documents import RenderRequested, ReprocessRequested
from schemas.events.envelope import decode
from schemas.lifecycle import StepStatus
from schemas.steps import StepName
from schemas.tables.documents import Document, FigureImage
from schemas.tables.events import EventRecord
from schemas.tables.uploads import Upload
from tests.factories.jobs import step_update
from tests.factories.tables import a_figure, a_table, figure_row, table_row
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.documents import ingested, revision_of

pytestmark = pytest.mark.anyio

ROW = ("Hamburg", "=1+1", "1,200")


async def with_tables(
    api: Api,
    transaction: BeginSession,
    *tables: TableFound,
    figures: tuple[FigureFound, ...] = (),
) -> str:
    """Return a document with these tables and figures."""
    document_id = await ingested(
        api,
        transaction,
        pages=["a", "b"],
        tables_state="complete",
        table_count=len(tables),
        figure_count=len(figures),
    )
    revision_id = await revision_of(transaction, document_id)
    async with transaction() as session:
        for number, table in enumerate(tables, start=1):
            session.add(table_row(revision_id, table, number=number))
        for number, figure in enumerate(figures, start=1):
            session.add(figure_row(revision_id, figure, number=number))
    return document_id


async def test_a_document_says_how_many_tables_it_has(api: Api, transaction: BeginSession) -> None:
    document_id = await with_tables(api, transaction, a_table(ROW), figures=(a_figure(),))

    shown = (await api.get(f"/documents/{document_id}")).json()

    assert (shown["tables"], shown["table_count"], shown["figure_count"]) == ("complete", 1, 1)
    assert shown["tables_reasons"] == []


async def test_tables_are_listed_page_by_page_without_cells(
    api: Api, transaction: BeginSession
) -> None:
    found = [a_table(ROW, page=page, caption=f"Table {page}") for page in (1, 2, 2)]
    document_id = await with_tables(api, transaction, *found)

    first = (await api.get(f"/documents/{document_id}/tables", limit=2)).json()
    second = (await api.get(f"/documents/{document_id}/tables", cursor=first["next_cursor"])).json()
    of_page = (await api.get(f"/documents/{document_id}/tables", page=2)).json()

    assert [each["number"] for each in (*first["items"], *second["items"])] == [1, 2, 3]
    assert [each["number"] for each in of_page["items"]] == [2, 3]
    shown = first["items"][0]
    assert "cells" not in shown
    assert (shown["row_count"], shown["column_count"], shown["cell_count"]) == (2, 3, 6)
    assert (shown["caption"], shown["method"], shown["header_row_count"]) == ("Table 1", "ruled", 1)
    assert shown["parts"] == [
        {"page": 1, "box": {"left": 72, "top": 90, "right": 372, "bottom": 130}}
    ]


async def test_a_table_is_listed_on_each_of_its_pages(api: Api, transaction: BeginSession) -> None:
    first = a_table(ROW)
    over_two = msgspec.structs.replace(
        first, parts=(*first.parts, msgspec.structs.replace(first.parts[0], page=2))
    )
    document_id = await with_tables(api, transaction, a_table(ROW), over_two, a_table(ROW, page=2))

    of_pages = [
        (await api.get(f"/documents/{document_id}/tables", page=page)).json()["items"]
        for page in (1, 2, 3)
    ]

    assert [[each["number"] for each in items] for items in of_pages] == [[1, 2], [2, 3], []]


async def test_a_table_is_shown_with_its_cells(api: Api, transaction: BeginSession) -> None:
    document_id = await with_tables(api, transaction, a_table(ROW))

    answer = await api.get(f"/documents/{document_id}/tables/1")

    table = answer.json()
    assert table["document_id"] == document_id
    assert [cell["text"] for cell in table["cells"]] == ["Port", "Cargo", "Weight", *ROW]
    assert table["cells"][5] == {
        "row": 1,
        "column": 2,
        "row_span": 1,
        "column_span": 1,
        "text": "1,200",
        "page": 1,
        "box": {"left": 272, "top": 110, "right": 372, "bottom": 130},
    }
    known = {"If-None-Match": answer.headers["etag"]}
    again = await api.ask("GET", f"/documents/{document_id}/tables/1", headers=known)
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("accept", "query", "is_csv"),
    [
        ("text/csv", "", True),
        ("text/csv;q=0.5, application/json", "", False),
        ("text/html, */*;q=0.8", "", False),
        ("application/json", "?format=csv", True),
        ("text/csv", "?format=json", False),
    ],
)
async def test_a_table_is_sent_in_the_format_that_the_client_asks_for(
    shared_api: Api, shared_transaction: BeginSession, *, accept: str, query: str, is_csv: bool
) -> None:
    document_id = await with_tables(shared_api, shared_transaction, a_table(ROW))

    answer = await shared_api.ask(
        "GET", f"/documents/{document_id}/tables/1{query}", headers={"Accept": accept}
    )

    assert answer.headers["content-type"] == (
        "text/csv; charset=utf-8" if is_csv else "application/json"
    )
    assert "Accept" in answer.headers["vary"]
    if is_csv:
        assert list(csv.reader(io.StringIO(answer.text, newline=""))) == [
            ["Port", "Cargo", "Weight"],
            ["Hamburg", "'=1+1", "1,200"],
        ]
        assert 'filename="a.pdf-table-1.csv"' in answer.headers["content-disposition"]


@pytest.mark.parametrize("path", ["tables/2", "figures/2/image"])
async def test_what_a_document_does_not_have_is_not_found(
    api: Api, transaction: BeginSession, path: str
) -> None:
    document_id = await with_tables(api, transaction, a_table(ROW), figures=(a_figure(),))

    assert problem(await api.get(f"/documents/{document_id}/{path}")) == (404, "not_found")


@pytest.mark.parametrize("path", ["tables", "tables/1", "figures", "figures/1/image"])
async def test_tables_of_others_and_of_unread_documents_are_not_shown(
    api: Api, stranger: Api, transaction: BeginSession, path: str
) -> None:
    unread = await ingested(api, transaction, pages=[], status="reading")
    document_id = await with_tables(api, transaction, a_table(ROW), figures=(a_figure(),))

    assert problem(await api.get(f"/documents/{unread}/{path}")) == (409, "document_not_ready")
    answer = await stranger.get(f"/documents/{document_id}/{path}")
    assert problem(answer) == (404, "document_not_found")


async def test_figures_are_listed_with_their_places(api: Api, transaction: BeginSession) -> None:
    document_id = await with_tables(api, transaction, figures=(a_figure(1), a_figure(2)))

    listed = (await api.get(f"/documents/{document_id}/figures", page=2)).json()

    assert listed == {
        "items": [
            {
                "number": 2,
                "page": 2,
                "kind": "image",
                "box": {"left": 100, "top": 200, "right": 300, "bottom": 400},
                "width_pixels": 640,
                "height_pixels": 480,
            }
        ],
        "next_cursor": None,
    }


async def image(api: Api, document_id: str, number: int = 1) -> httpx.Response:
    return await api.get(f"/documents/{document_id}/figures/{number}/image")


async def test_the_first_request_for_a_figure_makes_its_job(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await with_tables(api, transaction, figures=(a_figure(1), a_figure(2)))

    answer = await image(api, document_id, 2)
    again = await image(api, document_id, 2)

    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert again.json()["job_id"] == job["job_id"]
    revision_id = await revision_of(transaction, document_id)
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        body = (
            await session.scalars(
                select(EventRecord.body).where(EventRecord.type == RenderRequested.TYPE)
            )
        ).one()
        asked = (await session.scalars(select(FigureImage))).one()
    event = decode(body).data
    assert isinstance(event, RenderRequested)
    assert (event.page, event.figure, event.box) == (2, 2, (100, 200, 300, 400))
    assert event.image_key == object_keys.figure_image(document.upload_id, revision_id, number=2)
    assert (asked.number, str(asked.job_id)) == (2, job["job_id"])


async def test_a_figure_whose_page_cannot_be_rendered_says_why(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await with_tables(api, transaction, figures=(a_figure(),))
    job = (await image(api, document_id)).json()
    async with transaction() as session:
        await session.execute(step_update(job["job_id"], StepName.RENDER, StepStatus.RUNNING))
        await session.execute(
            step_update(
                job["job_id"],
                StepName.RENDER,
                StepStatus.FAILED,
                error_code="document_corrupt",
                error_detail="The page is damaged.",
                error_retryable=False,
            )
        )

    assert problem(await image(api, document_id)) == (422, "document_corrupt")


async def test_an_upload_keeps_what_its_client_chose_of_the_pipeline(
    api: Api, transaction: BeginSession
) -> None:
    chosen = await api.created(size=1, pipeline={"tables": False})
    without = await api.created(size=1)
    default = await api.created(size=1, pipeline={})
    form = await api.ask(
        "POST",
        "/upload-async",
        files={"file": ("a.pdf", b"%PDF-")},
        data={"pipeline": json.dumps({"tables": False})},
    )

    async with transaction() as session:
        rows = {
            row.id: row.pipeline
            for row in await session.execute(select(Upload.id, Upload.pipeline))
        }
    assert rows[UUID(chosen)] == {"tables": False}
    assert rows[UUID(without)] is None
    assert rows[UUID(default)] == {}
    assert rows[UUID(form.json()["upload_id"])] == {"tables": False}


@pytest.mark.parametrize("text", ["no", "[]", '{"tables": 1}', '{"unknown": true}', "{" * 10_000])
async def test_a_form_with_a_wrong_choice_is_refused(shared_api: Api, text: str) -> None:
    answer = await shared_api.ask(
        "POST",
        "/upload-async",
        files={"file": ("a.pdf", b"%PDF-")},
        data={"pipeline": text[:7_000]},
    )

    assert answer.status_code == 400


async def test_a_reprocessing_may_choose_for_itself(api: Api, transaction: BeginSession) -> None:
    document_id = await with_tables(api, transaction)
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        await session.execute(step_update(document.job_id, StepName.TRANSFER, StepStatus.COMPLETED))

    answer = await api.ask(
        "POST", f"/documents/{document_id}/reprocess", json={"pipeline": {"tables": False}}
    )

    assert answer.status_code == 202, answer.text
    async with transaction() as session:
        body = (
            await session.scalars(
                select(EventRecord.body).where(EventRecord.type == ReprocessRequested.TYPE)
            )
        ).one()
    event = decode(body).data
    assert isinstance(event, ReprocessRequested)
    assert event.tables is False
