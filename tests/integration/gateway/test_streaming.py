"""Lost, stuck and hostile bodies over real connections, and killed gateways, with both stagings."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import psutil
import pytest

from tests.integration.gateway.api import KIB64, MIB, Api, content_digest, pieces_of, problem
from tests.integration.gateway.conftest import MakeKey, Start
from tests.integration.gateway.process import api_of
from tests.integration.gateway.staged import Staged, over_both_stagings

pytestmark = [pytest.mark.anyio, over_both_stagings]

CONTENT = random.Random(5).randbytes(4 * MIB)


class Socket:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connect(cls, api: Api) -> "AsyncIterator[Socket]":
        url = api.http.base_url
        socket = cls(*await asyncio.open_connection(url.host, url.port))
        try:
            yield socket
        finally:
            socket.abort()

    async def send(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await self.writer.drain()

    async def put(
        self, api: Api, upload_id: str, *headers: str, body: bytes = b"", index: int = 0
    ) -> None:
        await self.send(
            f"PUT /api/v1/uploads/{upload_id}/chunks/{index} HTTP/1.1",
            "Host: gateway",
            f"Authorization: Bearer {api.key}",
            *headers,
            body=body,
        )

    async def status(self) -> int:
        """Return the status of the next answer; 0 if the connection ended without an answer."""
        async with asyncio.timeout(30):
            line = await self.reader.readline()
            return int(line.split()[1]) if line else 0

    def abort(self) -> None:
        """End the connection as a network failure does."""
        self.writer.transport.abort()


async def store_at_once(api: Api, upload_id: str, content: bytes) -> None:
    """Store chunk 0 within seconds; a lock that was not released would make this fail."""
    async with asyncio.timeout(5):
        answer = await api.put(upload_id, 0, content, content_digest(content))
    assert answer.status_code == 200, answer.text


async def test_a_connection_lost_within_a_chunk_stores_nothing_and_releases_the_lock(
    start: Start, make_key: MakeKey, staged: Staged
) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api, Socket.connect(api) as socket:
        upload_id = await api.created(size=len(CONTENT), chunk_size=len(CONTENT))
        length = f"Content-Length: {len(CONTENT)}"
        await socket.put(api, upload_id, length, body=CONTENT[::-1][:MIB])
        await process.first_logged("chunk.receiving")
        socket.abort()

        assert await api.stored(upload_id) == []
        await store_at_once(api, upload_id, CONTENT)
        assert await staged.chunks(api, upload_id) == {0: CONTENT}
    assert process.logged("http.failed") == []


async def test_a_killed_process_keeps_exactly_the_chunks_that_it_acknowledged(
    start: Start, make_key: MakeKey, staged: Staged
) -> None:
    key = await make_key()
    first = await start()
    async with api_of(first, key) as api:
        upload_id = await api.created(size=2 * MIB, chunk_size=MIB)
        async with Socket.connect(api) as socket:
            await socket.put(api, upload_id, f"Content-Length: {MIB}", body=bytes(MIB // 2))
            await first.first_logged("chunk.receiving")
            acked = await api.put(upload_id, 1, CONTENT[MIB : 2 * MIB])
            await first.kill()
        assert acked.status_code == 200

    async with api_of(await start(), key) as api:
        assert await api.stored(upload_id) == [1]
        await store_at_once(api, upload_id, CONTENT[:MIB])
        assert (await api.finalize(upload_id)).status_code == 202
        assert await staged.chunks(api, upload_id) == dict(
            enumerate(pieces_of(CONTENT[: 2 * MIB], chunk_size=MIB))
        )


async def test_acknowledged_chunks_survive_repeated_kills(
    start: Start, make_key: MakeKey, staged: Staged
) -> None:
    key, moments = await make_key(), random.Random(6)
    pieces = pieces_of(CONTENT)
    acked: set[int] = set()
    upload_id = ""
    for _ in range(4):
        process = await start()
        async with api_of(process, key) as api:
            upload_id = upload_id or await api.created(size=len(CONTENT))
            assert acked <= set(await api.stored(upload_id))

            acks = asyncio.Semaphore(0)

            async def send(
                index: int,
                api: Api = api,
                upload_id: str = upload_id,
                acks: asyncio.Semaphore = acks,
            ) -> None:
                answer = await api.put(upload_id, index, pieces[index])
                assert answer.status_code == 200, answer.text
                acked.add(index)
                acks.release()

            sending = [
                asyncio.create_task(send(index)) for index in moments.sample(range(len(pieces)), 24)
            ]
            for _ in range(moments.randint(1, 12)):
                await acks.acquire()
            await process.kill()
            outcomes = await asyncio.gather(*sending, return_exceptions=True)
            assert all(one is None or isinstance(one, httpx.HTTPError) for one in outcomes)
    async with api_of(await start(), key) as api:
        stored = await staged.chunks(api, upload_id)
    assert acked
    assert acked <= stored.keys()
    assert all(content == pieces[index] for index, content in stored.items())


async def test_of_different_contents_sent_to_two_gateways_exactly_one_is_stored(
    start: Start, make_key: MakeKey, staged: Staged
) -> None:
    key = await make_key()
    contents = [bytes([number]) * KIB64 for number in range(10)]
    async with api_of(await start(), key) as one, api_of(await start(), key) as other:
        upload_id = await one.created(size=KIB64)

        async def slowly(content: bytes) -> AsyncIterator[bytes]:
            for piece in pieces_of(content, chunk_size=KIB64 // 8):
                yield piece
                await asyncio.sleep(0.01)

        answers = await asyncio.gather(
            *(
                api.put(upload_id, 0, slowly(content))
                for api, content in zip((one, other) * 5, contents, strict=True)
            )
        )
        stored = await staged.chunks(one, upload_id)

    winners = [content for content, one in zip(contents, answers, strict=True) if one.is_success]
    assert len(winners) == 1
    assert stored == {0: winners[0]}
    assert staged.count(upload_id) == 1
    assert {problem(answer) for answer in answers if not answer.is_success} == {
        (409, "chunk_conflict")
    }


async def test_an_endless_body_is_cut_off_after_the_chunk(start: Start, make_key: MakeKey) -> None:
    process = await start(LINGER_BYTES="16MiB")
    async with api_of(process, await make_key()) as api, Socket.connect(api) as socket:
        upload_id = await api.created(size=KIB64)
        await socket.put(api, upload_id, "Transfer-Encoding: chunked")
        piece = b"10000\r\n" + bytes(KIB64) + b"\r\n"
        sent = 0
        try:
            async with asyncio.timeout(20):
                while sent < 512 * MIB:
                    socket.writer.write(piece)
                    await socket.writer.drain()
                    sent += KIB64
        except ConnectionError:
            pass

        assert sent < 64 * MIB, "the gateway kept reading"
        assert await api.stored(upload_id) == []


async def test_one_byte_too_many_is_refused(served: Api) -> None:
    upload_id = await served.created(size=KIB64)
    async with Socket.connect(served) as socket:
        body = b"10001\r\n" + bytes(KIB64 + 1) + b"\r\n0\r\n\r\n"
        await socket.put(served, upload_id, "Transfer-Encoding: chunked", body=body)

        assert await socket.status() == 400
        assert await served.stored(upload_id) == []


async def test_a_too_large_content_length_is_refused_before_the_body(served: Api) -> None:
    upload_id = await served.created(size=KIB64)
    async with Socket.connect(served) as socket:
        await socket.put(served, upload_id, f"Content-Length: {2**40}", "Expect: 100-continue")

        assert await socket.status() == 400


async def test_a_chunk_beyond_the_rate_limit_is_refused_before_the_body(
    start: Start, make_key: MakeKey
) -> None:
    process = await start(REQUEST_RATE="0.001", REQUEST_BURST="1")
    async with api_of(process, await make_key()) as api:
        upload_id = await api.created(size=7)
        async with Socket.connect(api) as socket:
            await socket.put(api, upload_id, "Content-Length: 7", "Expect: 100-continue")

            assert await socket.status() == 429


async def test_expect_100_continue_is_answered(served: Api) -> None:
    upload_id = await served.created(size=7)
    async with Socket.connect(served) as socket:
        await socket.put(served, upload_id, "Content-Length: 7", "Expect: 100-continue")

        assert await socket.status() == 100
        await socket.reader.readline()
        socket.writer.write(b"content")
        assert await socket.status() == 200


# One gateway for all of them: its start takes a hundred times as long as a request.
CONTRADICTORY_FRAMING = (
    ("Content-Length: -1",),
    ("Content-Length: 7", "Content-Length: 8"),
    ("Content-Length: 7", "Transfer-Encoding: chunked"),
    ("Transfer-Encoding: gzip",),
    ("Content-Length: 7", "Bad\x00Header: x"),
    ("Content-Length: seven",),
)


async def test_contradictory_framing_is_refused(served: Api) -> None:
    for headers in CONTRADICTORY_FRAMING:
        upload_id = await served.created(size=7)
        async with Socket.connect(served) as socket:
            await socket.put(served, upload_id, *headers, body=b"content")

            assert await socket.status() in {400, 0}, headers
            assert await served.stored(upload_id) == [], headers


async def test_an_endless_head_is_refused_and_costs_no_memory(
    start: Start, make_key: MakeKey
) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api:
        resident = psutil.Process(process.process.pid).memory_info
        before = resident().rss
        async with Socket.connect(api) as socket:
            socket.writer.write(b"GET /api/v1/jobs HTTP/1.1\r\nHost: gateway\r\nX-Endless: ")
            try:
                for _ in range(1024):
                    socket.writer.write(b"x" * KIB64)
                    await socket.writer.drain()
            except ConnectionError:
                pass

            assert resident().rss - before < 16 * MIB
            assert (await api.get("/jobs")).status_code == 200


async def test_a_too_large_head_is_answered_with_431(served: Api) -> None:
    async with Socket.connect(served) as socket:
        await socket.send("GET /api/v1/jobs HTTP/1.1", "Host: gateway", "X-Long: " + "x" * 10_000)
        assert await socket.status() == 401
    async with Socket.connect(served) as socket:
        socket.writer.write(b"GET /api/v1/jobs HTTP/1.1\r\nX-Long: " + b"x" * 20_000)
        assert await socket.status() == 431


async def test_endless_trailers_cost_no_memory(start: Start, make_key: MakeKey) -> None:
    process = await start(LINGER_BYTES="1MiB")
    async with api_of(process, await make_key()) as api:
        resident = psutil.Process(process.process.pid).memory_info
        before = resident().rss
        async with Socket.connect(api) as socket:
            socket.writer.write(b"PUT /api/v1/jobs HTTP/1.1\r\nHost: gateway\r\n")
            socket.writer.write(b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
            with suppress(ConnectionError):
                for _ in range(256):
                    socket.writer.write(b"x: y\r\n" * 10_000)
                    await socket.writer.drain()
                pytest.fail("the trailers were not stopped")

            assert resident().rss - before < 16 * MIB
            assert (await api.get("/jobs")).status_code == 200


async def test_a_trailer_is_not_read_as_a_header(served: Api) -> None:
    async with Socket.connect(served) as socket:
        await socket.send(
            "GET /api/v1/jobs HTTP/1.1",
            "Host: gateway",
            "Transfer-Encoding: chunked",
            body=f"0\r\nAuthorization: Bearer {served.key}\r\n\r\n".encode(),
        )
        assert await socket.status() == 401


async def test_an_early_refusal_keeps_the_connection_usable(served: Api) -> None:
    upload_id = await served.created(size=len(CONTENT), chunk_size=len(CONTENT))

    refused = await served.put(upload_id, 0, CONTENT, {"Content-Digest": "nonsense"})
    accepted = await served.put(upload_id, 0, CONTENT)

    assert problem(refused) == (400, "digest_invalid")
    assert accepted.status_code == 200


async def test_memory_does_not_grow_with_the_chunk(start: Start, make_key: MakeKey) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api:
        upload_id = await api.created(size=4 * 64 * MIB, chunk_size=64 * MIB)
        await api.put(await api.created(size=MIB, chunk_size=MIB), 0, bytes(MIB))
        resident = psutil.Process(process.process.pid).memory_info
        before, peak = resident().rss, 0
        sending = [
            asyncio.create_task(api.put(upload_id, index, zeros(64 * MIB))) for index in range(4)
        ]
        while any(not one.done() for one in sending):
            peak = max(peak, resident().rss)
            await asyncio.sleep(0.02)

    assert {(await one).status_code for one in sending} == {200}
    assert peak - before < 24 * MIB


async def test_a_client_that_disconnects_within_a_chunk_leaves_no_open_file(
    start: Start, make_key: MakeKey, staged: Staged
) -> None:
    process = await start()
    gateway = psutil.Process(process.process.pid)
    async with api_of(process, await make_key()) as api:
        warm = await api.created(size=len(CONTENT), chunk_size=len(CONTENT))
        await api.put(warm, 0, CONTENT)
        upload_id = await api.created(size=len(CONTENT), chunk_size=len(CONTENT))
        files = {path for path, *_ in gateway.open_files()}
        for number in range(8):
            async with Socket.connect(api) as socket:
                length = f"Content-Length: {len(CONTENT)}"
                await socket.put(api, upload_id, length, body=CONTENT[: 3 * MIB])
                await process.logged_times("chunk.receiving", count=2 + number)
        async with asyncio.timeout(10):
            while {path for path, *_ in gateway.open_files()} != files:  # noqa: ASYNC110  # another process's files
                await asyncio.sleep(0.02)

        await store_at_once(api, upload_id, CONTENT)
        assert staged.count(upload_id) == 1
        assert staged.scratch() == []
    assert process.logged("http.failed") == []


async def test_any_gateway_accepts_any_chunk_while_connections_are_lost(
    start: Start, make_key: MakeKey, staged: Staged
) -> None:
    key, rng = await make_key(), random.Random(8)
    pieces = pieces_of(CONTENT, chunk_size=4 * KIB64)
    async with api_of(await start(), key) as one, api_of(await start(), key) as other:
        uploads = [await one.created(size=len(CONTENT), chunk_size=4 * KIB64) for _ in range(3)]

        async def cut(upload_id: str, index: int) -> None:
            async with Socket.connect(rng.choice((one, other))) as socket:
                piece = pieces[index]
                length = f"Content-Length: {len(piece)}"
                wrong = bytes(rng.randrange(len(piece)))
                await socket.put(one, upload_id, length, body=wrong, index=index)
                await asyncio.sleep(rng.uniform(0, 0.02))

        async def send(upload_id: str, index: int) -> None:
            answer = await rng.choice((one, other)).put(upload_id, index, pieces[index])
            assert answer.status_code == 200, answer.text

        work = [
            (do, upload_id, index)
            for upload_id in uploads
            for index in range(len(pieces))
            for do in (cut, send, send)
        ]
        rng.shuffle(work)
        queue = iter(work)

        async def work_off_queue() -> None:
            for do, upload_id, index in queue:
                await do(upload_id, index)

        await asyncio.gather(*(work_off_queue() for _ in range(8)))

        for upload_id in uploads:
            assert await staged.chunks(other, upload_id) == dict(enumerate(pieces))
            assert (await other.finalize(upload_id)).status_code == 202


async def test_a_full_disk_refuses_chunks_until_there_is_room(
    start: Start, make_key: MakeKey, staged: Staged
) -> None:
    process = await start()
    size = 2 * MIB
    async with api_of(process, await make_key()) as api:
        upload_id = await api.created(size=2 * size, chunk_size=size)
        limits = psutil.Process(process.process.pid)
        # Like a full disk, the limit makes a write in the middle of the chunk fail.
        limits.rlimit(
            psutil.RLIMIT_FSIZE, (staged.size_limit_for(size) + KIB64, psutil.RLIM_INFINITY)
        )

        assert problem(await api.put(upload_id, 1, CONTENT[size:])) == (507, "staging_full")
        assert await api.stored(upload_id) == []
        assert staged.scratch() == []
        limits.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))

        assert (await api.put(upload_id, 1, CONTENT[size:])).status_code == 200
        assert await staged.chunks(api, upload_id) == {1: CONTENT[size:]}


async def zeros(count: int) -> AsyncIterator[bytes]:
    block = bytes(256 * 1024)
    for _ in range(count // len(block)):
        yield block
