"""Servers that receive a file in chunks, behind one interface."""

import json
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from dev.bench.wire import Connection, Content

API: Final = "/api/v1"


@dataclass(frozen=True, kw_only=True)
class Sending:
    """A file that is being sent."""

    path: str
    """Path of the upload on the server."""
    id: str
    size: int
    chunk_size: int

    @property
    def chunks(self) -> range:
        """The indexes; all chunks have one size."""
        return range(-(-self.size // self.chunk_size))


class Receiver(Protocol):
    """Sends files with the protocol of one kind of server."""

    def connect(self) -> Connection: ...

    def begin(self, connection: Connection, *, size: int, chunk_size: int) -> Sending: ...

    def send(
        self, connection: Connection, sending: Sending, *, index: int, content: Content
    ) -> None:
        """Send one chunk and return when it is acknowledged."""

    def end(self, connection: Connection, sending: Sending) -> None:
        """Finalize the file, if the protocol has such a request."""

    def forget(self, connection: Connection, sending: Sending) -> None:
        """Delete the file on the server."""


class Waybill:
    def __init__(self, url: str, *, api_key: str) -> None:
        self._url = url
        self._api_key = api_key

    def connect(self) -> Connection:
        return Connection(self._url, headers={"Authorization": f"Bearer {self._api_key}"})

    def begin(self, connection: Connection, *, size: int, chunk_size: int) -> Sending:
        requested = {"filename": "bench.bin", "size": size, "chunk_size": chunk_size}
        created = _post(connection, f"{API}/uploads", requested)
        upload_id = created["upload_id"]
        return Sending(
            path=f"{API}/uploads/{upload_id}",
            id=upload_id,
            size=size,
            chunk_size=int(created["chunk_size"]),
        )

    def send(
        self, connection: Connection, sending: Sending, *, index: int, content: Content
    ) -> None:
        connection.ask(
            "PUT",
            f"{sending.path}/chunks/{index}",
            body=content.data,
            headers={"Content-Digest": content.digest},
        )

    def end(self, connection: Connection, sending: Sending) -> None:
        _post(connection, f"{API}/upload", {"upload_id": sending.id})

    def forget(self, connection: Connection, sending: Sending) -> None:
        connection.ask("DELETE", sending.path)


class Tus:
    """The tus protocol 1.0: one sequence of appends per file."""

    def __init__(self, url: str) -> None:
        self._url = url

    def connect(self) -> Connection:
        return Connection(self._url, headers={"Tus-Resumable": "1.0.0"})

    def begin(self, connection: Connection, *, size: int, chunk_size: int) -> Sending:
        answer = connection.ask("POST", "/files", headers={"Upload-Length": str(size)})
        path = urlsplit(answer.response.headers["Location"]).path
        return Sending(path=path, id=path.rpartition("/")[2], size=size, chunk_size=chunk_size)

    def send(
        self, connection: Connection, sending: Sending, *, index: int, content: Content
    ) -> None:
        connection.ask(
            "PATCH",
            sending.path,
            body=content.data,
            headers={
                "Content-Type": "application/offset+octet-stream",
                "Upload-Offset": str(index * sending.chunk_size),
            },
        )

    def end(self, connection: Connection, sending: Sending) -> None:
        """Do nothing: the last append completed the file."""

    def forget(self, connection: Connection, sending: Sending) -> None:
        connection.ask("DELETE", sending.path)


def _post(connection: Connection, path: str, body: dict[str, object]) -> dict[str, str]:
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    return connection.ask("POST", path, body=content, headers=headers).json
