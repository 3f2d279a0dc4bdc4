"""The object stores of the tests, as the local stack starts them."""

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import pytest

from dev.stack.infrastructure import Part, Store
from dev.stack.object_store import ObjectStore
from dev.stack.stack import Stack, discard

if TYPE_CHECKING:
    from pathlib import Path

EXTRA = {"swift-proxy-tls", "rclone", "rclone-tls"}


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    state_dir: Path = request.config.getoption("--state-dir")
    directory = state_dir / "stores"
    discard(directory)
    with Stack(directory) as stack:
        stack.start_infrastructure(Part.OBJECT_STORE)
        yield stack
    discard(directory)


def test_a_store_starts_when_it_is_first_requested(stack: Stack) -> None:
    before = set(stack.processes)

    for store in Store:
        for _ in range(2):
            settings = stack.start_store(store)
            ObjectStore.from_settings(settings).client.put_object(
                Bucket=settings["S3_BUCKET"], Key=store, Body=b"bytes"
            )

    assert not before & EXTRA
    assert set(stack.processes) == before | EXTRA


def test_swift_shows_the_same_objects_with_and_without_tls(stack: Stack) -> None:
    plain, encrypted = (stack.start_store(store) for store in (Store.SWIFT, Store.SWIFT_TLS))
    ObjectStore.from_settings(plain).client.put_object(
        Bucket=plain["S3_BUCKET"], Key="one", Body=b"bytes"
    )

    found = ObjectStore.from_settings(encrypted).client.get_object(
        Bucket=encrypted["S3_BUCKET"], Key="one"
    )

    assert encrypted["S3_ENDPOINT_URL"].startswith("https://")
    with found["Body"] as body:
        assert body.read() == b"bytes"


def test_stores_listen_on_loopback_only(stack: Stack) -> None:
    for store in Store:
        stack.start_store(store)

    addresses = {
        connection.laddr.ip
        for name in EXTRA
        for connection in psutil.Process(stack.processes[name].pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    }

    assert addresses == {"127.0.0.1"}
