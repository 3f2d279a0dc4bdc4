import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from gateway.staging import BodyHasher, StagedUpload
from gateway.staging.bucket import ObjectBackend
from gateway.uploads.body import BlockWriter
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind
from tests.factories.buffers import buffers_of

if TYPE_CHECKING:
    from gateway.staging.store import Store

pytestmark = pytest.mark.anyio

UPLOAD = StagedUpload(
    id=UploadId(uuid4()),
    tenant_id=TenantId(uuid4()),
    size=4,
    chunk_size=4,
    kind=StagingKind.OBJECTS,
)


class SlowStore:
    """Keeps what it is asked to put, and confirms it once `may_confirm` is set."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()
        self.may_confirm = asyncio.Event()
        self.content = b""

    async def put(self, key: str, *, content: Any, size_bytes: int, md5: bytes) -> None:  # noqa: ANN401, ARG002  # as `Store`
        content.seek(0)
        self.content = content.read()
        self.is_asked.set()
        await self.may_confirm.wait()

    def close(self) -> None:
        pass


async def test_a_body_holds_no_buffer_while_the_store_is_slow(tmp_path: Path) -> None:
    store, buffers = SlowStore(), buffers_of(4)
    backend = ObjectBackend(cast("Store", store), work_dir=tmp_path)
    async with backend.open_chunk(
        UPLOAD, index=0, offset=0, size_bytes=4, hasher=BodyHasher()
    ) as writer:
        blocks = BlockWriter(writer, buffers=buffers, tenant_id=UPLOAD.tenant_id)
        await blocks.add(b"abcd")
        completing = asyncio.create_task(blocks.complete())
        await store.is_asked.wait()
        assert buffers.lent == 0
        # Another body fills the same buffer.
        other = await buffers.borrow(UPLOAD.tenant_id)
        other[:] = bytes(len(other))

        store.may_confirm.set()
        await completing
        await blocks.aclose()
    assert store.content == b"abcd"
    backend.close()
