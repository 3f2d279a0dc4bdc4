"""Chunks, in one process: order, repetition, digests, conflicts, limits."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete

from gateway.uploads import operations
from schemas.tables.uploads import Chunk
from tests.integration.gateway.api import KIB64, Api, content_digest, pieces_of, problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.db import Transaction
    from tests.integration.gateway.conftest import Serve

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

CONTENT = random.Random(1).randbytes(5 * KIB64 + 1234)  # only to be told apart
PIECES = pieces_of(CONTENT)


def staged(staging_dir: Path, upload_id: str) -> bytes:
    return (staging_dir / upload_id).read_bytes()


def wipe(staging_dir: Path, upload_id: str) -> None:
    (staging_dir / upload_id).unlink()


class Stuck:
    """A body that stops in the middle until it is told to go on."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.is_read = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content[:100]
        self.is_read.set()
        await self.may_go_on.wait()
        yield self._content[100:]


async def slowly(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def test_chunks_in_any_order_and_in_parallel_make_the_file(
    api: Api, staging_dir: Path
) -> None:
    upload_id = await api.created(size=len(CONTENT))
    order = [*range(len(PIECES)), *range(len(PIECES))]
    random.Random(2).shuffle(order)  # an order, not a secret

    answers = await asyncio.gather(
        *(
            api.put(upload_id, index, PIECES[index], content_digest(PIECES[index]))
            for index in order
        )
    )

    for index, answer in zip(order, answers, strict=True):
        assert answer.status_code == 200, answer.text
        sha256 = hashlib.sha256(PIECES[index]).hexdigest()
        assert answer.json() == {
            "upload_id": upload_id,
            "index": index,
            "size": len(PIECES[index]),
            "sha256": sha256,
        }
        assert answer.headers["etag"] == f'"{sha256}"'
    assert staged(staging_dir, upload_id) == CONTENT
    manifest = (await api.get(f"/uploads/{upload_id}")).json()
    assert manifest["received_bytes"] == len(CONTENT)
    assert [chunk["index"] for chunk in manifest["chunks"]] == list(range(len(PIECES)))


async def test_a_stored_chunk_is_never_written_again(api: Api, staging_dir: Path) -> None:
    upload_id = await api.created(size=len(CONTENT))
    first = await api.put(upload_id, 1, PIECES[1])
    before = os.stat(staging_dir / upload_id).st_mtime_ns  # noqa: PTH116  # a moment, in a test

    same = await api.put(upload_id, 1, PIECES[1])
    other = await api.put(upload_id, 1, PIECES[2])

    assert same.status_code == 200
    assert same.json() == first.json()
    assert problem(other) == (409, "chunk_conflict")
    assert os.stat(staging_dir / upload_id).st_mtime_ns == before  # noqa: PTH116  # a moment, in a test
    assert staged(staging_dir, upload_id)[KIB64 : 2 * KIB64] == PIECES[1]


async def test_a_conflicting_chunk_with_its_own_right_digest_is_still_a_conflict(
    api: Api,
) -> None:
    upload_id = await api.created(size=len(CONTENT))
    await api.put(upload_id, 1, PIECES[1])

    answer = await api.put(upload_id, 1, PIECES[2], content_digest(PIECES[2]))

    assert problem(answer) == (409, "chunk_conflict")


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
async def test_a_damaged_chunk_is_refused_and_can_be_sent_again(
    api: Api, algorithm: str, field: str
) -> None:
    upload_id = await api.created(size=len(CONTENT))
    digest = {field: content_digest(PIECES[0], algorithm)["Content-Digest"]}
    damaged = bytes([PIECES[0][0] ^ 1]) + PIECES[0][1:]

    refused = await api.put(upload_id, 0, damaged, digest)

    assert problem(refused) == (400, "chunk_digest_mismatch")
    assert await api.stored(upload_id) == []
    assert (await api.put(upload_id, 0, PIECES[0], digest)).status_code == 200


async def test_a_stored_chunk_repeated_with_damage_is_a_digest_mismatch(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))
    await api.put(upload_id, 0, PIECES[0])

    answer = await api.put(upload_id, 0, PIECES[1], content_digest(PIECES[0]))

    assert problem(answer) == (400, "chunk_digest_mismatch")


async def test_a_malformed_digest_is_refused_before_the_body_is_read(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))

    read = False

    async def noticed() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b""

    answer = await api.put(upload_id, 0, noticed(), {"Content-Digest": "sha-256=nonsense"})

    assert problem(answer) == (400, "digest_invalid")
    assert not read


async def test_digests_on_several_lines_are_all_checked(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))
    right = content_digest(PIECES[0])["Content-Digest"]
    wrong = content_digest(PIECES[1], "sha-512")["Content-Digest"]

    answer = await api.http.put(
        f"/api/v1/uploads/{upload_id}/chunks/0",
        content=PIECES[0],
        headers=[
            *api.authorization.items(),
            ("Content-Digest", right),
            ("Content-Digest", wrong),
        ],
    )

    assert problem(answer) == (400, "chunk_digest_mismatch")


@pytest.mark.parametrize(
    ("index", "code"),
    [
        ("6", "chunk_index_out_of_range"),
        ("-1", "chunk_index_out_of_range"),
        ("99999999999999999999999", "chunk_index_out_of_range"),
    ],
)
async def test_a_chunk_the_file_does_not_have_is_refused(api: Api, index: str, code: str) -> None:
    upload_id = await api.created(size=len(CONTENT))

    answer = await api.ask("PUT", f"/uploads/{upload_id}/chunks/{index}", content=b"x")

    assert problem(answer) == (400, code)


@pytest.mark.parametrize("difference", [-1, 1, -KIB64, KIB64])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_chunk_has_exactly_its_size(api: Api, difference: int, *, declared: bool) -> None:
    upload_id = await api.created(size=len(CONTENT))
    content = bytes(KIB64 + difference)

    answer = await api.put(upload_id, 0, content if declared else slowly(content))

    assert problem(answer) == (400, "chunk_size_mismatch")
    assert await api.stored(upload_id) == []


async def test_the_last_chunk_has_what_is_left(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))

    assert problem(await api.put(upload_id, 5, bytes(KIB64))) == (400, "chunk_size_mismatch")
    assert (await api.put(upload_id, 5, PIECES[5])).status_code == 200


async def test_a_body_in_pieces_of_any_size_is_put_together(api: Api, staging_dir: Path) -> None:
    size = 3 * operations.BLOCK_BYTES + 777
    content = random.Random(3).randbytes(size)  # only to be told apart
    upload_id = await api.created(size=size, chunk_size=4 * operations.BLOCK_BYTES)
    edges = sorted(random.Random(4).sample(range(size), 400))  # where to cut
    pieces = [content[start:end] for start, end in zip([0, *edges], [*edges, size], strict=True)]

    answer = await api.put(upload_id, 0, slowly(*pieces), content_digest(content))

    assert answer.status_code == 200
    assert staged(staging_dir, upload_id) == content


async def test_an_encoded_or_partial_chunk_is_refused(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))

    for header in (
        {"Content-Encoding": "gzip"},
        {"Transfer-Encoding": "gzip, chunked"},
        {"Content-Range": "bytes 0-9/10"},
    ):
        answer = await api.put(upload_id, 0, PIECES[0], header)
        assert problem(answer) == (400, "invalid_request")


async def test_an_empty_file_needs_no_chunk(api: Api, staging_dir: Path) -> None:
    upload_id = await api.created(size=0)

    assert problem(await api.put(upload_id, 0, b"")) == (400, "chunk_index_out_of_range")
    assert (await api.finalize(upload_id)).status_code == 202
    assert staged(staging_dir, upload_id) == b""


async def test_lost_staging_is_told(api: Api, staging_dir: Path) -> None:
    upload_id = await api.created(size=len(CONTENT))
    wipe(staging_dir, upload_id)

    assert problem(await api.put(upload_id, 0, PIECES[0])) == (500, "staging_missing")


async def test_of_two_contents_for_one_chunk_at_once_one_wins_and_the_file_has_it(
    api: Api, staging_dir: Path
) -> None:
    contents = [bytes([number]) * KIB64 for number in range(8)]
    upload_id = await api.created(size=KIB64)

    answers = await asyncio.gather(
        *(api.put(upload_id, 0, slowly(*pieces_of(one, chunk_size=997))) for one in contents)
    )

    winners = [one for one, answer in zip(contents, answers, strict=True) if answer.is_success]
    assert len(winners) == 1
    assert staged(staging_dir, upload_id) == winners[0]
    assert {problem(one) for one in answers if not one.is_success} == {(409, "chunk_conflict")}


async def test_who_waits_too_long_for_a_chunk_is_told_to_come_back(serve: Serve) -> None:
    body = Stuck(bytes(KIB64))

    async with serve(chunk_lock_wait="50ms") as api:
        upload_id = await api.created(size=2 * KIB64)
        first = asyncio.create_task(api.put(upload_id, 0, body))
        await body.is_read.wait()

        refused = await api.put(upload_id, 0, bytes(KIB64))
        neighbour = await api.put(upload_id, 1, bytes(KIB64))
        body.may_go_on.set()

        assert problem(refused) == (409, "chunk_in_progress")
        assert refused.headers["retry-after"] == "1"
        assert neighbour.status_code == 200
        assert (await first).status_code == 200
        assert (await api.put(upload_id, 0, bytes(KIB64))).status_code == 200


async def test_a_chunk_finished_after_the_upload_was_abandoned_is_not_acked(
    api: Api, transaction: Transaction
) -> None:
    body = Stuck(bytes(KIB64))
    upload_id = await api.created(size=KIB64)
    sending = asyncio.create_task(api.put(upload_id, 0, body))
    await body.is_read.wait()
    await api.ask("DELETE", f"/uploads/{upload_id}")
    body.may_go_on.set()

    assert problem(await sending) == (409, "upload_not_open")
    async with transaction() as session:
        assert (await session.execute(delete(Chunk).returning(Chunk.index))).all() == []
