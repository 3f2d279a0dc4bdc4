"""Chunks in one process, with both stagings: order, repetition, digests, conflicts, limits."""

import asyncio
import base64
import hashlib
import random
from collections.abc import AsyncIterator

import google_crc32c
import httpx
import pytest
from sqlalchemy import delete, select, update

from gateway.staging.buffers import BUFFER_BYTES
from schemas.tables.uploads import Chunk, Upload
from tests.integration.gateway.api import (
    KIB64,
    Api,
    BeginSession,
    PausedBody,
    content_digest,
    digest_field,
    pieces_of,
    problem,
)
from tests.integration.gateway.staged import Staged, over_both_stagings

pytestmark = [pytest.mark.anyio, over_both_stagings]

CONTENT = random.Random(1).randbytes(5 * KIB64 + 1234)  # distinguishable bytes
PIECES = pieces_of(CONTENT)


async def chunk_sent_while_cancelled(api: Api) -> tuple[str, httpx.Response]:
    """Cancel an upload while its chunk is sent; return its id and the answer to the chunk."""
    body = PausedBody(bytes(KIB64))
    upload_id = await api.created(size=KIB64)
    sending = asyncio.create_task(api.put(upload_id, 0, body))
    await body.has_started.wait()
    await api.ask("DELETE", f"/uploads/{upload_id}")
    body.may_continue.set()
    return upload_id, await sending


async def slowly(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def test_chunks_may_be_sent_in_any_order_in_parallel_and_repeatedly(
    api: Api, staged: Staged
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
    assert await staged.chunks(api, upload_id) == dict(enumerate(PIECES))
    manifest = (await api.get(f"/uploads/{upload_id}")).json()
    assert manifest["received_bytes"] == len(CONTENT)
    assert [chunk["index"] for chunk in manifest["chunks"]] == list(range(len(PIECES)))


async def test_a_stored_chunk_is_never_overwritten(api: Api, staged: Staged) -> None:
    upload_id = await api.created(size=len(CONTENT))
    first = await api.put(upload_id, 1, PIECES[1])
    before = staged.fingerprint(upload_id)

    same = await api.put(upload_id, 1, PIECES[1])
    other = await api.put(upload_id, 1, PIECES[2])

    assert same.status_code == 200
    assert same.json() == first.json()
    assert problem(other) == (409, "chunk_conflict")
    assert staged.fingerprint(upload_id) == before
    assert await staged.chunks(api, upload_id) == {1: PIECES[1]}


async def test_other_content_with_a_correct_digest_is_a_conflict(
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
    digest = {field: digest_field(PIECES[0], algorithm)}
    damaged = bytes([PIECES[0][0] ^ 1]) + PIECES[0][1:]

    refused = await api.put(upload_id, 0, damaged, digest)

    assert problem(refused) == (400, "chunk_digest_mismatch")
    assert await api.stored(upload_id) == []
    assert (await api.put(upload_id, 0, PIECES[0], digest)).status_code == 200


async def test_a_crc32c_is_checked(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))
    crc = google_crc32c.value(PIECES[0]).to_bytes(4, "big")
    digest = {"Content-Digest": f"crc32c=:{base64.b64encode(crc).decode()}:"}

    refused = await api.put(upload_id, 0, PIECES[1], digest)

    assert problem(refused) == (400, "chunk_digest_mismatch")
    assert (await api.put(upload_id, 0, PIECES[0], digest)).status_code == 200


async def test_a_damaged_repetition_of_a_stored_chunk_is_a_digest_mismatch(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))
    await api.put(upload_id, 0, PIECES[0])

    answer = await api.put(upload_id, 0, PIECES[1], content_digest(PIECES[0]))

    assert problem(answer) == (400, "chunk_digest_mismatch")


async def test_a_malformed_digest_is_refused_before_the_body_is_read(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))

    read = False

    async def recording_body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b""

    answer = await api.put(upload_id, 0, recording_body(), {"Content-Digest": "sha-256=nonsense"})

    assert problem(answer) == (400, "digest_invalid")
    assert not read


async def test_digest_fields_on_several_lines_are_all_checked(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))
    right = digest_field(PIECES[0])
    wrong = digest_field(PIECES[1], "sha-512")

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
async def test_an_index_outside_the_file_is_refused(api: Api, index: str, code: str) -> None:
    upload_id = await api.created(size=len(CONTENT))

    answer = await api.ask("PUT", f"/uploads/{upload_id}/chunks/{index}", content=b"x")

    assert problem(answer) == (400, code)


@pytest.mark.parametrize("difference", [-1, 1, -KIB64, KIB64])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_chunk_of_another_size_is_refused(
    api: Api, difference: int, *, declared: bool
) -> None:
    upload_id = await api.created(size=len(CONTENT))
    content = bytes(KIB64 + difference)

    answer = await api.put(upload_id, 0, content if declared else slowly(content))

    assert problem(answer) == (400, "chunk_size_mismatch")
    assert await api.stored(upload_id) == []


async def test_the_last_chunk_has_the_size_of_the_remaining_bytes(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))

    assert problem(await api.put(upload_id, 5, bytes(KIB64))) == (400, "chunk_size_mismatch")
    assert (await api.put(upload_id, 5, PIECES[5])).status_code == 200


async def test_a_body_may_arrive_in_pieces_of_any_size(api: Api, staged: Staged) -> None:
    size = 3 * BUFFER_BYTES + 777
    content = random.Random(3).randbytes(size)  # distinguishable bytes
    upload_id = await api.created(size=size, chunk_size=4 * BUFFER_BYTES)
    edges = sorted(random.Random(4).sample(range(size), 400))  # where to cut
    pieces = [content[start:end] for start, end in zip([0, *edges], [*edges, size], strict=True)]

    answer = await api.put(upload_id, 0, slowly(*pieces), content_digest(content))

    assert answer.status_code == 200
    assert await staged.chunks(api, upload_id) == {0: content}


async def test_an_encoded_or_partial_chunk_is_refused(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))

    for header in (
        {"Content-Encoding": "gzip"},
        {"Transfer-Encoding": "gzip, chunked"},
        {"Content-Range": "bytes 0-9/10"},
    ):
        answer = await api.put(upload_id, 0, PIECES[0], header)
        assert problem(answer) == (400, "invalid_request")


async def test_an_empty_file_has_no_chunks(api: Api, staged: Staged) -> None:
    upload_id = await api.created(size=0)

    assert problem(await api.put(upload_id, 0, b"")) == (400, "chunk_index_out_of_range")
    assert (await api.finalize(upload_id)).status_code == 202
    assert await staged.chunks(api, upload_id) == {}


async def test_of_concurrent_requests_with_different_contents_exactly_one_is_stored(
    api: Api, staged: Staged
) -> None:
    contents = [bytes([number]) * KIB64 for number in range(8)]
    upload_id = await api.created(size=KIB64)

    answers = await asyncio.gather(
        *(api.put(upload_id, 0, slowly(*pieces_of(one, chunk_size=997))) for one in contents)
    )

    winners = [one for one, answer in zip(contents, answers, strict=True) if answer.is_success]
    assert len(winners) == 1
    assert await staged.chunks(api, upload_id) == {0: winners[0]}
    assert staged.count(upload_id) == 1, "refused content was left"
    assert {problem(one) for one in answers if not one.is_success} == {(409, "chunk_conflict")}


async def test_a_chunk_completed_after_a_cancel_is_refused(
    api: Api, transaction: BeginSession
) -> None:
    _, answer = await chunk_sent_while_cancelled(api)

    assert problem(answer) == (409, "upload_not_open")
    async with transaction() as session:
        assert (await session.execute(delete(Chunk).returning(Chunk.index))).all() == []


async def test_ten_concurrent_requests_with_the_same_content_all_succeed(
    api: Api, staged: Staged
) -> None:
    upload_id = await api.created(size=KIB64)

    answers = await asyncio.gather(
        *(api.put(upload_id, 0, slowly(*pieces_of(PIECES[0], chunk_size=997))) for _ in range(10))
    )

    assert {answer.status_code for answer in answers} == {200}
    assert await staged.chunks(api, upload_id) == {0: PIECES[0]}


async def test_the_bytes_of_a_chunk_completed_after_a_cancel_are_deleted(
    api: Api, staged: Staged
) -> None:
    upload_id, _ = await chunk_sent_while_cancelled(api)

    assert staged.count(upload_id) == 0


@pytest.mark.parametrize(
    ("first_bytes", "media_type"), [(b"%PDF-1.7\n", "application/pdf"), (b"no magic", None)]
)
async def test_the_first_chunk_sets_the_sniffed_type(
    api: Api, transaction: BeginSession, first_bytes: bytes, media_type: str | None
) -> None:
    content = first_bytes + CONTENT[len(first_bytes) :]
    upload_id = await api.created(size=len(content), content_type="image/png")
    pieces = pieces_of(content)

    async def sniffed() -> str | None:
        async with transaction() as session:
            found: str | None = await session.scalar(select(Upload.sniffed_type))
            return found

    await api.put(upload_id, 1, pieces[1])
    assert await sniffed() is None
    await api.put(upload_id, 0, pieces[0])
    assert await sniffed() == media_type


async def test_a_refused_first_chunk_does_not_set_the_sniffed_type(
    api: Api, transaction: BeginSession
) -> None:
    upload_id = await api.created(size=KIB64)
    pdf, png = (
        magic + bytes(KIB64 - len(magic)) for magic in (b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n")
    )
    gate = PausedBody(png)
    late = asyncio.create_task(api.put(upload_id, 0, gate))
    await gate.has_started.wait()
    early = asyncio.create_task(api.put(upload_id, 0, pdf))
    gate.may_continue.set()
    answers = {"image/png": await late, "application/pdf": await early}

    (stored,) = (name for name, answer in answers.items() if answer.status_code == 200)
    async with transaction() as session:
        assert await session.scalar(select(Upload.sniffed_type)) == stored


async def test_concurrent_first_and_later_chunks_never_deadlock(api: Api) -> None:
    for _ in range(3):
        upload_id = await api.created(size=len(CONTENT))
        answers = await asyncio.gather(
            *(api.put(upload_id, index, piece) for index, piece in enumerate(PIECES)),
            *(api.put(upload_id, 0, PIECES[0]) for _ in range(4)),
        )
        assert {answer.status_code for answer in answers} == {200}
        assert (await api.finalize(upload_id)).status_code == 202


@pytest.mark.parametrize(
    ("status", "answered"),
    [
        ("expired", (410, "upload_expired")),
        ("cancelled", (409, "upload_not_open")),
        ("stored", (409, "upload_not_open")),
        ("failed", (409, "upload_not_open")),
    ],
)
async def test_a_cached_upload_that_has_ended_accepts_no_chunk(
    api: Api, transaction: BeginSession, status: str, answered: tuple[int, str]
) -> None:
    upload_id = await api.created(size=len(CONTENT))
    await api.put(upload_id, 1, PIECES[1])
    async with transaction() as session:
        await session.execute(update(Upload).values(status=status))

    assert problem(await api.put(upload_id, 0, PIECES[0])) == answered


async def test_a_cached_upload_stays_invisible_to_other_tenants(api: Api, stranger: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))
    await api.put(upload_id, 0, PIECES[0])

    for index in (0, 1):
        answer = await stranger.put(upload_id, index, PIECES[index])
        assert problem(answer) == (404, "upload_not_found")
