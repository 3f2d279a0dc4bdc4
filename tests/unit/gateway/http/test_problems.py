from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import pytest
from litestar import Litestar, get, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.testing import TestClient
from litestar.types import ASGIApp, Receive, Scope, Send
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.context import ApiRequest
from gateway.http import problems
from gateway.http.bodies import Bodies, BodyLimits
from gateway.http.problems import STATUS_BY_CODE, InvalidRequest, ReadingStopped
from schemas.errors import DomainError, ErrorCode
from schemas.settings import BodySettings, HttpSettings

LEAK = "postgresql://waybill:hunter2@db/waybill"


class Body(msgspec.Struct):
    size: int


class StoppedReading(ReadingStopped):
    code = ErrorCode.CHUNK_SIZE_MISMATCH


class UploadGone(DomainError):
    code = ErrorCode.UPLOAD_EXPIRED


class Busy(DomainError):
    code = ErrorCode.SYSTEM_BUSY
    retry_after = timedelta(seconds=6.2)


ERRORS: dict[str, Exception] = {
    "busy": Busy("later"),
    "domain": UploadGone("the upload expired"),
    "stopped": StoppedReading("too long"),
    "field": InvalidRequest("is not a cursor", field="cursor"),
    "unavailable": OperationalError("SELECT", {}, Exception(LEAK)),
    "pool": PoolTimeout("QueuePool limit reached"),
    "lost": DBAPIError("SELECT", {}, Exception(LEAK), connection_invalidated=True),
    "database": DBAPIError("SELECT", {}, Exception(LEAK)),
    "bug": RuntimeError(LEAK),
    "http": HTTPException(status_code=418, detail="teapot"),
}


@get("/fail/{kind:str}")
async def fail(kind: FromPath[str]) -> None:
    raise ERRORS[kind]


@get("/number")
async def number(
    wanted: Annotated[int, QueryParameter(ge=0)],
    token: FromQuery[str],
    at_most: Annotated[int, QueryParameter(name="limit", ge=1)] = 1,
) -> dict[str, Any]:
    return {"wanted": wanted, "token": token, "at_most": at_most}


@post("/body")
async def body(data: JSONBody[Body]) -> Body:
    return data


def authenticated(app: ASGIApp) -> ASGIApp:
    async def with_caller(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = SimpleNamespace(tenant_id=uuid4())
        await app(scope, receive, send)

    return with_caller


@pytest.fixture
def client() -> Iterator[TestClient[Litestar]]:
    app = Litestar(
        [fail, number, body],
        exception_handlers=problems.EXCEPTION_HANDLERS,
        state=State(
            {
                "context": SimpleNamespace(
                    settings=HttpSettings(),
                    bodies=Bodies(BodyLimits.from_settings(BodySettings())),
                )
            }
        ),
        middleware=[authenticated],
        request_class=ApiRequest,
        request_max_body_size=1024 * 1024,
        logging_config=None,
        openapi_config=None,
    )
    with TestClient(app) as client:
        yield client


def test_every_error_code_has_a_status() -> None:
    assert STATUS_BY_CODE.keys() == set(ErrorCode)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("domain", 410, "upload_expired"),
        ("busy", 503, "system_busy"),
        ("stopped", 400, "chunk_size_mismatch"),
        ("field", 400, "invalid_request"),
        ("unavailable", 503, "unavailable"),
        ("pool", 503, "unavailable"),
        ("lost", 503, "unavailable"),
        ("database", 500, "internal"),
        ("bug", 500, "internal"),
        ("http", 418, "invalid_request"),
    ],
)
def test_every_error_is_answered_as_a_problem(
    client: TestClient[Litestar], kind: str, status: int, code: str
) -> None:
    answer = client.get(f"/fail/{kind}")

    problem = answer.json()
    assert answer.status_code == problem["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert problem["code"] == code
    assert problem["type"] == f"urn:waybill:problem:{code}"
    assert problem["title"]
    assert problem["instance"] == f"/fail/{kind}"
    assert "hunter2" not in answer.text


def test_a_temporary_error_has_retry_after(client: TestClient[Litestar]) -> None:
    assert int(client.get("/fail/unavailable").headers["retry-after"]) > 0


def test_an_error_says_itself_when_to_try_again(client: TestClient[Litestar]) -> None:
    assert client.get("/fail/busy").headers["retry-after"] == "7"


def test_an_unread_body_closes_the_connection(client: TestClient[Litestar]) -> None:
    assert client.get("/fail/stopped").headers["connection"] == "close"
    assert "connection" not in client.get("/fail/domain").headers


def test_an_invalid_field_is_named(client: TestClient[Litestar]) -> None:
    assert client.get("/fail/field").json()["errors"] == [
        {"field": "cursor", "message": "is not a cursor"}
    ]
    answer = client.get("/number?wanted=-1&token=abc")
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": "wanted", "message": "Expected `int` >= 0"}]


def test_an_invalid_parameter_is_named_as_the_client_names_it(client: TestClient[Litestar]) -> None:
    answer = client.get("/number?wanted=1&token=abc&limit=0")

    assert answer.json()["errors"] == [{"field": "limit", "message": "Expected `int` >= 1"}]


def test_a_problem_does_not_repeat_the_query(client: TestClient[Litestar]) -> None:
    assert "hunter2" not in client.get("/number?wanted=x&token=hunter2").text


def test_an_unknown_route_and_method_are_problems(client: TestClient[Litestar]) -> None:
    missing, wrong = client.get("/nowhere"), client.delete("/number")

    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in wrong.headers["allow"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"nonsense", 400),
        (b'{"size": "\xff\xfe"}', 400),
        (b'{"size": "\\ud800"}', 400),
        (b'{"size": 1e999}', 400),
        (b'{"other": 1}', 400),
        (b"[" * 100_000, 400),
        (b'{"size": ' + b'{"a":' * 50_000, 400),
        (b'{"size": 1}' + b" " * 2 * 1024 * 1024, 413),
    ],
    ids=range(10),
)
def test_a_malformed_body_is_a_client_error(
    client: TestClient[Litestar], content: bytes, status: int
) -> None:
    answer = client.post("/body", content=content, headers={"content-type": "application/json"})

    assert (answer.status_code, answer.json()["code"]) == (status, "invalid_request")


def test_a_refusal_of_too_much_json_names_the_limit(client: TestClient[Litestar]) -> None:
    answer = client.post("/body", json={"size": 1, "more": "x" * 1024 * 1024})

    assert answer.json()["detail"] == "a JSON body has at most 1048576 bytes"


def test_the_refusal_of_malformed_json_names_the_body_once(client: TestClient[Litestar]) -> None:
    problem = client.post("/body", content=b"a=b").json()

    assert problem["detail"] == "body: is not JSON: invalid character (byte 0)"
    assert problem["errors"] == [
        {"field": "body", "message": "is not JSON: invalid character (byte 0)"}
    ]
