import logging
import re
from typing import Any

import httpx
import pytest
from litestar.types import Receive, Scope, Send

from gateway.http import request_log
from gateway.http.request_log import RequestLog, level_of


@pytest.mark.parametrize(
    ("route", "status", "level"),
    [
        ("/api/v1/uploads/{upload_id}/chunks/{index}", 200, logging.DEBUG),
        ("/api/v1/uploads/{upload_id}/chunks/{index}", 409, logging.INFO),
        ("/api/v1/uploads/{upload_id}/chunks/{index}", None, logging.INFO),
        ("/api/v1/uploads/{upload_id}", 200, logging.INFO),
        ("/health/ready", 200, logging.DEBUG),
        ("/health/ready", 503, logging.INFO),
    ],
)
def test_frequent_successful_requests_are_logged_at_debug(
    route: str, status: int | None, level: int
) -> None:
    assert level_of(route, status=status) == level


def test_a_preflight_is_logged_at_debug() -> None:
    assert level_of("unrouted", method="OPTIONS", status=204) == logging.DEBUG
    assert level_of("unrouted", method="OPTIONS", status=401) == logging.INFO


async def echo(_: Scope, __: Receive, send: Send) -> None:
    """Answer with the request id that the application sees."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    seen = request_log.request_id() or ""
    await send({"type": "http.response.body", "body": seen.encode(), "more_body": False})


async def answered_id(*given: bytes) -> tuple[str, list[str]]:
    """Return the id that the application sees, and those in the answer."""
    headers = [(b"X-Request-ID", value) for value in given]
    application: Any = RequestLog(echo)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application)) as client:
        answer = await client.get("http://gateway/", headers=headers)
    return answer.text, answer.headers.get_list("x-request-id")


@pytest.mark.parametrize("given", [b"a", b"7b2f9c-1.2_3:4=5@6+7/8", b"x" * 128])
@pytest.mark.anyio
async def test_a_well_formed_request_id_is_kept(given: bytes) -> None:
    assert await answered_id(given) == (given.decode(), [given.decode()])


@pytest.mark.parametrize(
    "given",
    [(), (b"",), (b"a b",), (b'a"b',), (b"a,b",), ("ü".encode(),), (b"x" * 129,), (b"a", b"b")],
    ids=repr,
)
@pytest.mark.anyio
async def test_another_request_id_is_replaced(given: tuple[bytes, ...]) -> None:
    seen, answered = await answered_id(*given)

    assert re.fullmatch(r"[0-9a-f]{32}", seen)
    assert answered == [seen]
