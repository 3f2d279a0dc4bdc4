import asyncio
import gc
from functools import partial

import pytest

from schemas.runtime import postgres
from schemas.settings import DatabaseSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_listener_that_is_cancelled_while_it_connects_closes_its_socket() -> None:
    is_connected, is_closed = asyncio.Event(), asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_connected.set()
        await reader.read(-1)
        is_closed.set()
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    settings = DatabaseSettings.model_validate(
        {"database_url": f"postgresql+psycopg://user:secret@{host}:{port}/none?sslmode=disable"}
    )
    connect = partial(postgres.connect, settings, connection={"application_name": "test"})
    listener = asyncio.create_task(postgres.listen(connect, {"none": lambda _: None}))
    await is_connected.wait()
    gc.collect()
    gc.disable()
    try:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        del listener
        async with asyncio.timeout(5):
            await is_closed.wait()
    finally:
        gc.enable()
        server.close()
