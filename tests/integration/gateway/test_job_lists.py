from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, select, update

from gateway.jobs import listing
from schemas.ids import BatchId
from schemas.lifecycle import StepStatus
from schemas.steps import StepName
from schemas.tables.batches import Batch
from schemas.tables.jobs import Job, JobLabel
from tests.factories.jobs import step_update
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey
from tests.integration.gateway.workers import fail, store

pytestmark = pytest.mark.anyio

BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
BATCH: Final = BatchId(uuid4())
LONG: Final = "ä" * 2048

# Named by what distinguishes each from the first. The labels keep the time at which the job was added.
UPLOADS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "failed": {},
    "completed": {"metadata": {"case": "7"}},
    "reading": {"metadata": {"case": "7", "kind": "x"}},
    "bulk": {"priority": "bulk"},
    "of a batch": {},
    "long value": {"metadata": {"long": LONG, "a:b": "c"}},
    "colon": {"metadata": {"a": "b:c"}},
}


@pytest.fixture(scope="module")
async def ids(shared_api: Api, shared_transaction: BeginSession) -> dict[str, str]:
    return await added(shared_api, shared_transaction)


async def added(api: Api, transaction: BeginSession) -> dict[str, str]:
    """Add the jobs of `UPLOADS`, and one of an export, one for each day from `BEGIN` on."""
    found = {}
    for name, options in UPLOADS.items():
        priority = options.get("priority")
        upload_id = await api.sent(
            b"content", **{key: value for key, value in options.items() if key == "metadata"}
        )
        answer = await api.finalize(upload_id, **({"priority": priority} if priority else {}))
        found[name] = answer.json()["job_id"]
    export = await api.ask("POST", "/exports", json={"kind": "documents"})
    found["export"] = export.json()["job_id"]
    async with transaction() as session:
        tenant_id = await session.scalar(
            select(Job.tenant_id).where(Job.id == UUID(found["plain"]))
        )
        session.add(Batch(id=BATCH, tenant_id=tenant_id, expires_at=BEGIN))
        await fail(session, found["failed"], code="staging_corrupt")
        await store(session, found["completed"])
        await store(session, found["reading"], will_be_read=True)
        await session.execute(step_update(found["reading"], StepName.INGEST, StepStatus.RUNNING))
        for day, job_id in enumerate(found.values()):
            of_job = Job.id == UUID(job_id)
            created_at = BEGIN + timedelta(days=day)
            batch = {"batch_id": BATCH} if job_id == found["of a batch"] else {}
            await session.execute(update(Job).where(of_job).values(created_at=created_at, **batch))
            await session.execute(
                update(JobLabel)
                .where(JobLabel.job_id == UUID(job_id))
                .values(created_at=created_at)
            )
    return found


async def listed(api: Api, **query: Any) -> list[str]:  # noqa: ANN401  # any query
    """Return the ids of all pages of a list."""
    seen: list[str] = []
    while True:
        answer = await api.get("/jobs", **query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        seen += [job["job_id"] for job in page["items"]]
        if page["next_cursor"] is None:
            return seen
        query["cursor"] = page["next_cursor"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "failed"}, ["failed"]),
        ({"status": "processing"}, ["reading"]),
        ({"kind": "export"}, ["export"]),
        ({"kind": "replay"}, []),
        ({"stage": "ingest"}, ["reading"]),
        ({"stage": "done"}, ["completed"]),
        ({"stage": "transfer", "status": "failed"}, ["failed"]),
        ({"priority": "bulk"}, ["bulk"]),
        ({"batch_id": str(BATCH)}, ["of a batch"]),
        ({"batch_id": str(uuid4())}, []),
        ({"metadata": "case:7"}, ["reading", "completed"]),
        ({"metadata": "case:7", "sort": "created_at"}, ["completed", "reading"]),
        ({"metadata": ["kind:x", "case:7"]}, ["reading"]),
        ({"metadata": ["case:7", "kind:y"]}, []),
        ({"metadata": "case:7", "status": "completed"}, ["completed"]),
        ({"metadata": "case:7", "created_after": "2026-01-03T12:00:00Z"}, ["reading"]),
        ({"metadata": "a:b:c"}, ["colon"]),
        ({"metadata": f"long:{LONG}"}, ["long value"]),
        ({"created_after": "2026-01-07T12:00:00Z"}, ["export", "colon"]),
        ({"created_before": "2026-01-02T00:00:00"}, ["plain"]),
        ({"created_after": "2026-01-01T12:00:00Z", "created_before": "2026-01-02T12:00:00Z"}, ["failed"]),
        ({"kind": "upload", "status": "completed", "priority": "interactive"}, ["completed"]),
    ],
)  # fmt: skip
async def test_a_filter_selects_jobs(
    shared_api: Api, ids: dict[str, str], query: dict[str, Any], expected: list[str]
) -> None:
    names = {job_id: name for name, job_id in ids.items()}

    assert [names[each] for each in await listed(shared_api, **query)] == expected


@pytest.mark.parametrize("sort", ["created_at", "-created_at"])
@pytest.mark.parametrize(
    "query",
    [
        {},
        {"kind": "upload"},
        {"kind": "upload", "priority": "interactive"},
        {"metadata": "case:7"},
        {"metadata": "case:7", "status": "completed"},
    ],
)
async def test_the_pages_of_a_filtered_list_hold_every_job_once(  # noqa: PLR0917  # fixtures and cases
    shared_api: Api,
    ids: dict[str, str],
    query: dict[str, Any],
    sort: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = await listed(shared_api, sort=sort, **query)
    in_order = list(ids.values()) if sort == "created_at" else list(ids.values())[::-1]
    assert expected == [each for each in in_order if each in expected]
    monkeypatch.setattr(listing, "SCANNED_MAX", 2)

    for limit in (1, 2):
        assert await listed(shared_api, sort=sort, limit=limit, **query) == expected


async def test_the_list_of_a_tenant_has_no_job_of_another(
    shared_api: Api, make_shared_key: MakeKey, ids: dict[str, str]
) -> None:
    stranger = shared_api.of(await make_shared_key(tenant="globex"))
    assert len(ids) > 0
    for query in ({}, {"metadata": "case:7"}, {"batch_id": str(BATCH)}, {"kind": "upload"}):
        assert await listed(stranger, **query) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"kind": "nothing"}, "kind"),
        ({"stage": "nowhere"}, "stage"),
        ({"priority": "high"}, "priority"),
        ({"batch_id": "x"}, "batch_id"),
        ({"metadata": "without colon"}, "metadata"),
        ({"metadata": "a:\0"}, "metadata"),
        ({"metadata": ["a:b"] * 9}, "metadata"),
        ({"created_after": "yesterday"}, "created_after"),
        ({"sort": "finished_at"}, "sort"),
    ],
)
async def test_an_invalid_filter_is_refused(
    shared_api: Api, query: dict[str, Any], field: str
) -> None:
    answer = await shared_api.get("/jobs", **query)

    assert problem(answer) == (400, "invalid_request")
    assert field in answer.text


async def test_the_labels_of_a_job_are_deleted_with_it(api: Api, transaction: BeginSession) -> None:
    ids = await added(api, transaction)
    count = select(func.count()).select_from(JobLabel)
    async with transaction() as session:
        before = await session.scalar(count)
        await session.execute(delete(Job).where(Job.id == UUID(ids["reading"])))
        assert (before, await session.scalar(count)) == (6, 4)
