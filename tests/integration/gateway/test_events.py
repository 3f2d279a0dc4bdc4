"""A job followed over a real connection, as Server-Sent Events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from schemas.steps import StepName
from tests.factories.jobs import step_update
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Start
from tests.integration.gateway.process import api_of

pytestmark = pytest.mark.anyio


class Event:
    def __init__(self, block: str) -> None:
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        self.id = int(lines["id"])
        self.name = lines["event"]
        self.data: dict[str, Any] = json.loads(lines["data"])


class Events:
    """The events of one connection."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._text = answer.aiter_text()
        self._held = ""

    async def block(self) -> str | None:
        async with asyncio.timeout(10):
            while "\n\n" not in self._held:
                more = await anext(self._text, None)
                if more is None:
                    return None
                self._held += more
        block, self._held = self._held.split("\n\n", 1)
        return block

    async def next(self) -> Event:
        while True:
            block = await self.block()
            assert block is not None, "the stream has ended"
            if block.startswith("id:"):
                return Event(block)

    async def is_over(self) -> bool:
        return await self.block() is None


@asynccontextmanager
async def following(api: Api, job_id: str, *, last: int | None = None) -> AsyncIterator[Events]:
    headers = api.authorization | ({} if last is None else {"Last-Event-ID": str(last)})
    async with api.http.stream("GET", f"/api/v1/jobs/{job_id}/events", headers=headers) as answer:
        yield Events(answer)


async def advance(transaction: BeginSession, job_id: str, *, done: int) -> None:
    async with transaction() as session:
        await workers.advance(session, job_id, done=done)


async def store(transaction: BeginSession, job_id: str) -> None:
    async with transaction() as session:
        await workers.store(session, job_id)


async def fail(transaction: BeginSession, job_id: str, *, code: str) -> None:
    async with transaction() as session:
        await workers.fail(session, job_id, code=code)


async def test_a_stream_sends_every_change_until_the_job_is_settled(
    served: Api, transaction: BeginSession
) -> None:
    _, job_id = await served.finalized(b"x" * 100)

    async with following(served, job_id) as events:
        assert events.answer.status_code == 200
        assert events.answer.headers["content-type"].startswith("text/event-stream")
        assert events.answer.headers["cache-control"] == "no-store"
        assert events.answer.headers["x-accel-buffering"] == "no"
        assert await events.block() == "retry: 1000"
        first = await events.next()
        assert (first.name, first.data["status"]) == ("progress", "queued")
        seen = first.id
        for done in (10, 60):
            await advance(transaction, job_id, done=done)
            event = await events.next()
            assert (event.name, event.data["bytes_done"]) == ("progress", done)
            assert event.id > seen
            seen = event.id
        await store(transaction, job_id)
        last = await events.next()
        assert (last.name, last.data["progress"]) == ("completed", 100)
        assert last.id > seen
        assert last.data == (await served.get(f"/jobs/{job_id}")).json()
        assert await events.is_over()


async def test_a_reconnected_client_gets_only_later_events(
    served: Api, transaction: BeginSession
) -> None:
    _, job_id = await served.finalized(b"x" * 100)
    async with following(served, job_id) as events:
        first = await events.next()
    for done in (10, 20, 30):
        await advance(transaction, job_id, done=done)

    async with following(served, job_id, last=first.id) as events:
        newest = await events.next()
        assert (newest.id > first.id, newest.data["bytes_done"]) == (True, 30)
    async with following(served, job_id, last=newest.id) as events:
        assert await events.block() == "retry: 1000"
        await fail(transaction, job_id, code="store_rejected")
        event = await events.next()
        assert (event.id > newest.id, event.name) == (True, "failed")
        assert await events.is_over()


async def test_a_client_that_has_the_last_event_is_answered_with_204(
    served: Api, transaction: BeginSession
) -> None:
    _, job_id = await served.finalized()
    async with following(served, job_id) as events:
        first = await events.next()
    await fail(transaction, job_id, code="staging_corrupt")

    async with following(served, job_id, last=first.id) as events:
        event = await events.next()
        assert event.name == "failed"
    async with following(served, job_id, last=event.id) as events:
        assert events.answer.status_code == 204


async def test_a_renewed_lease_sends_no_event(served: Api, transaction: BeginSession) -> None:
    _, job_id = await served.finalized()

    async with following(served, job_id) as events:
        first = await events.next()
        for owner in ("a", "b"):
            async with transaction() as session:
                renewed = step_update(job_id, StepName.TRANSFER, lease_owner=owner)
                await session.execute(renewed)
        await advance(transaction, job_id, done=1)
        event = await events.next()

    assert (event.id, event.data["status"]) == (first.id + 1, "processing")


async def test_a_slow_client_gets_the_newest_state(served: Api, transaction: BeginSession) -> None:
    _, job_id = await served.finalized(b"x" * 1000)

    async with following(served, job_id) as events:
        await events.next()
        for done in range(1, 301):
            await advance(transaction, job_id, done=done)
        seen = [await events.next()]
        while seen[-1].data["bytes_done"] < 300:
            seen.append(await events.next())

    identifiers = [event.id for event in seen]
    assert identifiers == sorted(set(identifiers))


async def test_many_clients_get_the_last_event(served: Api, transaction: BeginSession) -> None:
    _, job_id = await served.finalized()

    async def follow() -> str:
        async with following(served, job_id) as events:
            while (event := await events.next()).name == "progress":
                pass
            assert await events.is_over()
            return event.name

    readers = [asyncio.create_task(follow()) for _ in range(30)]
    await asyncio.sleep(0.5)
    await store(transaction, job_id)

    assert await asyncio.gather(*readers) == ["completed"] * 30


async def test_a_stopping_gateway_ends_its_streams(start: Start, make_key: MakeKey) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api:
        _, job_id = await api.finalized()
        async with following(api, job_id) as events:
            await events.next()
            stopping = asyncio.create_task(process.stop())
            assert await events.is_over()

    async with asyncio.timeout(10):
        assert await stopping == 0
    assert process.logged("http.failed") == []


async def test_a_disconnected_client_ends_its_stream(start: Start, make_key: MakeKey) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api:
        _, job_id = await api.finalized()
        async with following(api, job_id) as events:
            await events.next()

        async with asyncio.timeout(10):
            for line in iter(lambda: process.logged("http.request"), None):
                if any(entry["route"].endswith("/events") for entry in line):
                    break
                await asyncio.sleep(0.02)
    assert process.logged("http.failed") == []


async def test_a_job_of_another_tenant_cannot_be_followed(api: Api, stranger: Api) -> None:
    _, job_id = await api.finalized()

    assert problem(await stranger.get(f"/jobs/{job_id}/events")) == (404, "job_not_found")
