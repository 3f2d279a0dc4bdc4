"""Files that the malware scan has not passed are neither served nor read again."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from schemas.events.documents import ReprocessRequested
from schemas.events.envelope import decode
from schemas.lifecycle import ScanState
from schemas.settings import DatabaseSettings, ObjectStoreSettings
from schemas.tables.audit import AuditEntry
from schemas.tables.documents import Document
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.documents import ingested
from tests.integration.gateway.process import run_command

pytestmark = pytest.mark.anyio

SIGNATURE = "Waybill.Test.Marker"
WITHHELD = [
    (ScanState.PENDING, "scan_pending"),
    (ScanState.INFECTED, "malware_found"),
    (ScanState.UNSCANNABLE, "document_unscannable"),
]


async def document_in(
    api: Api,
    transaction: BeginSession,
    state: ScanState,
    **values: Any,  # noqa: ANN401  # any column of the document
) -> str:
    """Add a document in a state of its scan, whose job has ended."""
    document_id = await ingested(api, transaction, pages=["text"], scan_state=state, **values)
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        await workers.store(session, str(document.job_id))
    return document_id


def steps_of(job: dict[str, Any]) -> list[str]:
    return [step["name"] for step in job["steps"]]


@pytest.mark.parametrize(("state", "code"), WITHHELD)
async def test_a_file_that_the_scan_has_not_passed_is_withheld(
    api: Api, transaction: BeginSession, state: ScanState, code: str
) -> None:
    document_id = await document_in(api, transaction, state)

    for path in ("file", "attachments", "pages/1/image"):
        assert problem(await api.get(f"/documents/{document_id}/{path}")) == (409, code), path


@pytest.mark.parametrize("state", [ScanState.OFF, ScanState.CLEAN, ScanState.UNSCANNED])
async def test_a_file_that_has_passed_is_served(
    serve: Serve,
    transaction: BeginSession,
    object_store_settings: ObjectStoreSettings,
    state: ScanState,
) -> None:
    async with serve(store=object_store_settings) as api:
        document_id = await document_in(api, transaction, state)

        assert (await api.get(f"/documents/{document_id}/file")).status_code == 307
        assert (await api.get(f"/documents/{document_id}/attachments")).status_code == 200


async def test_a_document_shows_its_scan(api: Api, transaction: BeginSession) -> None:
    document_id = await document_in(api, transaction, ScanState.INFECTED, scan_signature=SIGNATURE)

    shown = (await api.get(f"/documents/{document_id}")).json()["malware_scan"]

    assert shown == {"state": "infected", "signature": SIGNATURE, "scanned_at": None}
    answer = await api.get(f"/documents/{document_id}/file")
    assert SIGNATURE in answer.json()["detail"]


async def test_a_quarantined_document_is_not_read_again(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await document_in(api, transaction, ScanState.INFECTED)

    answer = await api.ask("POST", f"/documents/{document_id}/reprocess")

    assert problem(answer) == (409, "malware_found")


@pytest.mark.parametrize("state", [ScanState.OFF, ScanState.CLEAN])
async def test_a_reprocessing_scans_first_if_scans_are_set_up(
    serve: Serve, transaction: BeginSession, state: ScanState
) -> None:
    async with serve(malware_scan="clamd://scanner:3310") as api:
        document_id = await document_in(api, transaction, state)

        answer = await api.ask("POST", f"/documents/{document_id}/reprocess")

    assert answer.status_code == 202, answer.text
    assert (steps_of(answer.json()), answer.json()["stage"]) == (["scan"], "scan")
    async with transaction() as session:
        queues = await session.scalars(
            select(OutboxMessage.queue)
            .join(EventRecord, EventRecord.id == OutboxMessage.event_id)
            .where(EventRecord.type == ReprocessRequested.TYPE)
        )
        assert queues.all() == ["uploads"]


@pytest.mark.parametrize("state", [ScanState.PENDING, ScanState.UNSCANNABLE])
async def test_a_withheld_file_is_scanned_before_it_is_read_also_without_a_scanner(
    api: Api, transaction: BeginSession, state: ScanState
) -> None:
    document_id = await document_in(api, transaction, state)

    answer = await api.ask("POST", f"/documents/{document_id}/reprocess")

    assert steps_of(answer.json()) == ["scan"]


async def test_an_operator_orders_the_scan_of_a_quarantined_file(
    api: Api, transaction: BeginSession, database: DatabaseSettings
) -> None:
    document_id = await document_in(api, transaction, ScanState.INFECTED)
    url = database.database_url.get_secret_value()

    code, printed, warning = await run_command("documents", "rescan", document_id, DATABASE_URL=url)
    again = await run_command("documents", "rescan", document_id, DATABASE_URL=url)
    unknown = await run_command("documents", "rescan", str(UUID(int=1)), DATABASE_URL=url)

    assert code == 0
    assert "MALWARE_SCAN is not set here" in warning
    job = (await api.get(f"/jobs/{printed.removeprefix('job: ').strip()}")).json()
    assert (job["kind"], steps_of(job)) == ("reprocess", ["scan"])
    assert (again[0], unknown[0]) == (1, 1)
    assert "is being read by job" in again[2]
    assert "there is no document" in unknown[2]
    async with transaction() as session:
        event = (
            await session.scalars(
                select(EventRecord).where(EventRecord.type == ReprocessRequested.TYPE)
            )
        ).one()
        entry = (
            await session.scalars(
                select(AuditEntry).where(AuditEntry.action == "document.rescan_ordered")
            )
        ).one()
    data = decode(event.body).data
    assert isinstance(data, ReprocessRequested)
    assert data.is_rescan
    assert (entry.target, entry.detail) == (f"document/{document_id}", {"job_id": job["job_id"]})
