"""The errors that the adapter raises when the network fails."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

import pytest

from pipeline.storage.port import ObjectRange
from pipeline.storage.s3 import S3Storage
from schemas.errors import StoreMisconfigured, StoreUnavailable
from schemas.object_keys import ObjectKey
from schemas.settings import ObjectStoreSettings

KEY = ObjectKey("originals/tenant/upload")


@contextmanager
def connected(port: int, *, scheme: str = "http", **changes: object) -> Iterator[S3Storage]:
    settings = ObjectStoreSettings.model_validate(
        {
            "s3_endpoint_url": f"{scheme}://127.0.0.1:{port}",
            "s3_bucket": "bucket",
            "s3_access_key_id": "key",
            "s3_secret_access_key": "secret",
            "s3_attempts": 1,
            **changes,
        }
    )
    storage = S3Storage.connect(settings)
    yield storage
    storage.close()


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Yield the port of a server that sends one answer to any request and closes the connection."""

    def serve() -> None:
        caller, _ = server.accept()
        with caller:
            caller.recv(65_536)
            caller.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_a_store_that_refuses_connections_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with connected(port, s3_attempts=2) as storage, pytest.raises(StoreUnavailable):
        storage.head(KEY)


def test_a_store_that_never_answers_is_unavailable_after_the_read_timeout() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        connected(server.getsockname()[1], s3_read_timeout=timedelta(milliseconds=300)) as storage,
        pytest.raises(StoreUnavailable, match="ReadTimeout"),
    ):
        storage.head(KEY)


def test_a_range_whose_connection_breaks_is_unavailable() -> None:
    broken = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\n\r\nhalf of"
    source = ObjectRange(KEY, offset=0, size_bytes=10)

    with (
        answering(broken) as port,
        connected(port) as storage,
        pytest.raises(StoreUnavailable),
        storage.read(source, abandoned=Event()) as blocks,
    ):
        b"".join(blocks)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_without_certificates_is_a_misconfiguration(
    tmp_path: Path, content: str | None
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        connected(server.getsockname()[1], scheme="https", s3_ca_bundle=bundle) as storage,
        pytest.raises(StoreMisconfigured, match="certificate"),
    ):
        storage.head(KEY)


def test_a_store_that_breaks_the_handshake_is_unavailable() -> None:
    with (
        answering(b"") as port,
        connected(port, scheme="https") as storage,
        pytest.raises(StoreUnavailable),
    ):
        storage.head(KEY)
