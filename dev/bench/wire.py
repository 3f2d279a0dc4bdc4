"""A client with minimal cost: one plain connection, and bodies prepared in advance.

Every measured server gets the same client.
"""

import base64
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Final, Self
from urllib.parse import urlsplit

TIMEOUT_SECONDS: Final = 300
START_SECONDS: Final = 30


class UnexpectedAnswer(Exception):
    def __init__(self, method: str, path: str, *, status: int, body: bytes) -> None:
        super().__init__(f"{method} {path}: {status} {body[:500].decode(errors='replace')}")


@dataclass(frozen=True, kw_only=True)
class Content:
    """A chunk's bytes and digest, computed once for many chunks."""

    data: bytes
    digest: str
    """`Content-Digest` of RFC 9530."""

    @classmethod
    def random(cls, size: int) -> Self:
        return cls.of(os.urandom(size))

    @classmethod
    def zeros(cls, size: int) -> Self:
        return cls.of(bytes(size))

    @classmethod
    def of(cls, data: bytes) -> Self:
        sha256 = base64.b64encode(hashlib.sha256(data).digest()).decode()
        return cls(data=data, digest=f"sha-256=:{sha256}:")


@dataclass(frozen=True, kw_only=True)
class Answer:
    response: HTTPResponse
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded


class Connection:
    """One persistent connection to a server."""

    def __init__(self, url: str, *, headers: Mapping[str, str]) -> None:
        address = urlsplit(url)
        self._http = HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
        self._headers = dict(headers)

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | memoryview | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and read the whole answer.

        Raises:
            UnexpectedAnswer: the status is not 2xx.
        """
        self._http.request(method, path, body=body, headers=self._headers | dict(headers or {}))
        response = self._http.getresponse()
        answered = response.read()
        if response.status not in range(200, 300):
            raise UnexpectedAnswer(method, path, status=response.status, body=answered)
        return Answer(response=response, body=answered)

    def close(self) -> None:
        self._http.close()


def wait_until_answering(host: str, port: int, *, path: str) -> None:
    """Return once a server that has just been started answers.

    Raises:
        ConnectionRefusedError: it does not listen within `START_SECONDS`.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        connection = HTTPConnection(host, port, timeout=START_SECONDS)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
        finally:
            connection.close()
