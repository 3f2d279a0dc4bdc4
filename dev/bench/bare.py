"""`python -m dev.bench.bare PORT`: the smallest Litestar routes, under uvicorn with httptools and uvloop.

`/bare` answers a constant of the shape of a job; POST decodes the body of a create first. `/query`
reads one row with a prepared statement before it answers: no route that reads the database can
cost less.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import uvicorn
from litestar import Litestar, get, post
from litestar.params import FromPath, JSONBody

from dev.bench.asgi import LOOPBACK
from gateway.db import CONNECTION
from gateway.settings import Settings
from schemas.api.jobs import JobView, StepView
from schemas.api.uploads import CreateUpload
from schemas.ids import JobId
from schemas.lifecycle import JobKind, JobStatus, Priority, StepStatus
from schemas.runtime import postgres
from schemas.steps import JobStage, StepName

if TYPE_CHECKING:
    from psycopg import AsyncConnection

NOW: Final = datetime(2026, 11, 27, tzinfo=UTC)

STEP: Final = StepView(
    name=StepName.TRANSFER,
    status=StepStatus.QUEUED,
    done=0,
    total=4,
    unit="bytes",
    attempts=0,
    queued_at=NOW,
    started_at=None,
    finished_at=None,
    error=None,
    task_id=None,
    place=None,
)

CONNECTIONS: Final = 8

QUERY: Final = "SELECT id, status FROM jobs WHERE id = %(id)s"


def _job(job_id: UUID) -> JobView:
    return JobView(
        job_id=JobId(job_id),
        upload_id=None,
        document_id=None,
        webhook_id=None,
        batch_id=None,
        task_id=None,
        kind=JobKind.UPLOAD,
        priority=Priority.INTERACTIVE,
        status=JobStatus.QUEUED,
        stage=JobStage.TRANSFER,
        progress=0,
        bytes_done=0,
        bytes_total=4,
        pages_done=0,
        pages_total=None,
        error=None,
        result=None,
        created_at=NOW,
        started_at=None,
        stored_at=None,
        finished_at=None,
        status_url=f"/jobs/{job_id}",
        steps=[STEP],
    )


@get("/bare/{job_id:uuid}")
async def bare(job_id: FromPath[UUID]) -> JobView:
    return _job(job_id)


@post("/bare")
async def bare_create(data: JSONBody[CreateUpload]) -> dict[str, str | int]:
    return {"filename": data.filename, "size": data.size}


def application(settings: Settings) -> Litestar:
    idle: asyncio.LifoQueue[AsyncConnection[Any]] = asyncio.LifoQueue()

    @asynccontextmanager
    async def connected(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as connections:
            for _number in range(CONNECTIONS):
                connection = await postgres.connect(settings, connection=CONNECTION)
                idle.put_nowait(await connections.enter_async_context(connection))
            yield

    @get("/query/{job_id:uuid}")
    async def query(job_id: FromPath[UUID]) -> JobView:
        connection = await idle.get()
        await (await connection.execute(QUERY, {"id": job_id}, prepare=True)).fetchone()
        idle.put_nowait(connection)
        return _job(job_id)

    return Litestar([bare, bare_create, query], lifespan=[connected], logging_config=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    uvicorn.run(
        application(Settings.load()),
        host=LOOPBACK,
        port=parser.parse_args().port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
