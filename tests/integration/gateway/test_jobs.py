import asyncio
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, event, select

from schemas.settings import StepSettings
from schemas.tables.events import EventRecord
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.workers import advance, fail, store

pytestmark = pytest.mark.anyio


async def test_a_job_shows_its_progress_and_its_error(api: Api, transaction: BeginSession) -> None:
    upload_id, job_id = await api.finalized()
    async with transaction() as session:
        await fail(
            session,
            job_id,
            code="store_unavailable",
            done=3,
            error_detail="the store did not answer",
            error_retryable=True,
        )

    by_job = (await api.get(f"/jobs/{job_id}")).json()
    by_upload = (await api.get(f"/uploads/{upload_id}/status")).json()

    assert by_job == by_upload
    assert (by_job["status"], by_job["progress"]) == ("failed", 25)
    assert by_job["error"] == {
        "code": "store_unavailable",
        "detail": "the store did not answer",
        "retryable": True,
    }


@pytest.mark.parametrize("path", ["/jobs/{job_id}", "/uploads/{upload_id}/status"])
async def test_a_long_poll_answers_when_the_job_settles(
    api: Api, transaction: BeginSession, path: str
) -> None:
    upload_id, job_id = await api.finalized()
    polling = asyncio.create_task(api.get(path.format(job_id=job_id, upload_id=upload_id), wait=30))
    await asyncio.sleep(0.3)
    assert not polling.done()
    begun = time.perf_counter()
    async with transaction() as session:
        await store(session, job_id)

    answer = await polling

    assert answer.json()["status"] == "completed"
    assert time.perf_counter() - begun < 5


async def test_a_long_poll_ends_when_its_time_is_up(serve: Serve) -> None:
    async with serve(wait_max="200ms") as api:
        _, job_id = await api.finalized()
        begun = time.perf_counter()
        answer = await api.get(f"/jobs/{job_id}", wait=1000)

        assert answer.json()["status"] == "queued"
        assert 0.2 <= time.perf_counter() - begun < 5


async def test_a_settled_job_is_answered_without_waiting(
    api: Api, transaction: BeginSession
) -> None:
    _, job_id = await api.finalized()
    async with transaction() as session:
        await fail(session, job_id, code="staging_corrupt")

    async with asyncio.timeout(5):
        assert (await api.get(f"/jobs/{job_id}", wait=60)).json()["status"] == "failed"


@pytest.mark.parametrize("wait", ["-1", "soon", "1e99", "99999999999"])
async def test_an_invalid_wait_is_refused(shared_api: Api, wait: str) -> None:
    answer = await shared_api.get(f"/jobs/{uuid4()}", wait=wait)

    assert problem(answer) == (400, "invalid_request")


async def test_jobs_are_listed_newest_first_page_by_page(
    api: Api, transaction: BeginSession
) -> None:
    made = [(await api.finalized())[1] for _ in range(5)]
    async with transaction() as session:
        for job_id in made[1:4]:
            await store(session, job_id)

    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get("/jobs", status="completed", limit=2, **cursor)).json()
        seen += [job["job_id"] for job in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}

    assert seen == made[3:0:-1]
    assert [job["job_id"] for job in (await api.get("/jobs")).json()["items"]] == made[::-1]


async def test_one_statement_reads_the_steps_of_all_jobs_of_a_page(api: Api) -> None:
    for _ in range(5):
        await api.finalized()
    statements: list[str] = []

    def note(*arguments: Any) -> None:  # noqa: ANN401  # SQLAlchemy's signature
        statements.append(arguments[2])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        jobs = (await api.get("/jobs")).json()["items"]
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert [len(job["steps"]) for job in jobs] == [1] * 5
    assert len([statement for statement in statements if "FROM steps" in statement]) == 1


async def test_a_job_shows_its_timeline(api: Api, transaction: BeginSession) -> None:
    _, job_id = await api.finalized()
    async with transaction() as session:
        await store(session, job_id, will_be_read=True)

    job = (await api.get(f"/jobs/{job_id}")).json()

    assert (job["kind"], job["priority"]) == ("upload", "interactive")
    assert (job["status"], job["stage"], job["progress"]) == ("processing", "ingest", 60)
    transfer, ingest = job["steps"]
    assert (transfer["name"], transfer["status"]) == ("transfer", "completed")
    assert (transfer["done"], transfer["total"], transfer["unit"]) == (7, 7, "bytes")
    assert transfer["queued_at"] <= transfer["started_at"] <= transfer["finished_at"]
    assert job["stored_at"] == transfer["finished_at"]
    assert (ingest["name"], ingest["status"], ingest["unit"]) == ("ingest", "queued", "pages")
    assert (ingest["started_at"], ingest["finished_at"], ingest["total"]) == (None, None, None)


async def test_the_server_caps_the_size_of_a_page(serve: Serve) -> None:
    async with serve(page_size_max=2) as api:
        for _ in range(3):
            await api.finalized()

        assert len((await api.get("/jobs", limit=1000)).json()["items"]) == 2


@pytest.mark.parametrize(
    "query", [{"status": "sleeping"}, {"limit": 0}, {"limit": "x"}, {"cursor": "nonsense"}]
)
async def test_an_invalid_query_is_refused(shared_api: Api, query: dict[str, str]) -> None:
    assert problem(await shared_api.get("/jobs", **query)) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["/jobs/{job_id}", "/uploads/{upload_id}/status"])
async def test_an_unchanged_job_is_not_sent_again(
    api: Api, transaction: BeginSession, path: str
) -> None:
    upload_id, job_id = await api.finalized()
    path = path.format(job_id=job_id, upload_id=upload_id)
    first = await api.get(path)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"

    again = await api.ask("GET", path, headers={"If-None-Match": f'"old", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    async with transaction() as session:
        await advance(session, job_id, done=3)
    changed = await api.ask("GET", path, headers={"If-None-Match": etag})

    assert (changed.status_code, changed.json()["bytes_done"]) == (200, 3)
    assert changed.headers["etag"] != etag
    head = await api.ask("HEAD", path)
    assert (head.status_code, head.headers["etag"]) == (200, changed.headers["etag"])


async def test_a_wait_for_an_unchanged_job_ends_with_304(
    api: Api, transaction: BeginSession
) -> None:
    _, job_id = await api.finalized()
    current = {"If-None-Match": (await api.get(f"/jobs/{job_id}")).headers["etag"]}

    unchanged = await api.ask("GET", f"/jobs/{job_id}?wait=1", headers=current)
    async with transaction() as session:
        await store(session, job_id)
    settled = await api.ask("GET", f"/jobs/{job_id}?wait=30", headers=current)

    assert unchanged.status_code == 304
    assert (settled.status_code, settled.json()["status"]) == (200, "completed")


async def test_a_place_in_line_is_part_of_the_etag(serve: Serve, transaction: BeginSession) -> None:
    async with serve(tenant_steps_max=1) as api:
        jobs = [(await api.finalized())[1] for _ in range(3)]
        first = await api.get(f"/jobs/{jobs[2]}")
        async with transaction() as session:
            await store(session, jobs[0], settings=StepSettings(tenant_steps_max=1))

        moved = await api.ask(
            "GET", f"/jobs/{jobs[2]}", headers={"If-None-Match": first.headers["etag"]}
        )

    assert first.json()["steps"][0]["place"] == 2
    assert (moved.status_code, moved.json()["steps"][0]["place"]) == (200, 1)


async def test_a_task_has_the_id_of_the_event_that_starts_it(
    api: Api, transaction: BeginSession
) -> None:
    upload_id = await api.sent(b"content")
    finalized = (await api.finalize(upload_id)).json()
    async with transaction() as session:
        started_by = await session.scalar(
            select(EventRecord.id).where(EventRecord.job_id == UUID(finalized["job_id"]))
        )

    shown = (await api.get(f"/jobs/{finalized['job_id']}")).json()

    assert finalized["task_id"] == shown["task_id"] == str(started_by)
    assert [step["task_id"] for step in shown["steps"]] == [str(started_by)]
