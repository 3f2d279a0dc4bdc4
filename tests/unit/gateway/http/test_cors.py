from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import structlog
from litestar import Litestar, get
from litestar.testing import TestClient

from gateway.http import cors
from gateway.http.request_log import RequestLog
from schemas.settings import HttpSettings

APP = "https://app.example.com"


@get("/thing")
async def show_thing() -> str:
    return "thing"


@contextmanager
def client_of(origins: str) -> Iterator[TestClient[Litestar]]:
    config = cors.config_from(HttpSettings.model_validate({"cors_origins": origins}))
    with TestClient(Litestar([show_thing], cors_config=config, openapi_config=None)) as client:
        yield client


def allowed_origin(origins: str, *, asking: str) -> str | None:
    with client_of(origins) as client:
        answer = client.get("/thing", headers={"Origin": asking})
        allowed: str | None = answer.headers.get("access-control-allow-origin")
    return allowed


def test_no_origin_is_allowed_by_default() -> None:
    assert cors.config_from(HttpSettings()) is None


@pytest.mark.parametrize(
    "asking",
    [
        "https://app.example.com.evil.example",
        "https://evil.example/?https://app.example.com",
        "https://appxexample.com",
        "https://other.example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "null",
    ],
)
def test_an_origin_is_compared_as_a_whole(asking: str) -> None:
    assert allowed_origin(f"{APP},http://localhost:3000", asking=asking) is None


def test_each_listed_origin_is_allowed_by_name() -> None:
    origins = f"{APP}, http://localhost:3000"

    assert allowed_origin(origins, asking=APP) == APP
    assert allowed_origin(origins, asking="http://localhost:3000") == "http://localhost:3000"


def test_every_origin_is_allowed_only_without_credentials() -> None:
    asking = {"Origin": APP, "Access-Control-Request-Method": "GET"}
    with client_of("*") as client:
        answers = [client.options("/thing", headers=asking), client.get("/thing", headers=asking)]

    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


PREFLIGHT = {"Access-Control-Request-Method": "GET"}


@pytest.fixture
def guarded() -> Iterator[TestClient[Any]]:
    config = cors.config_from(HttpSettings.model_validate({"cors_origins": APP}))
    app = Litestar([show_thing], cors_config=config, openapi_config=None)
    with TestClient(cast("Any", RequestLog(cast("Any", cors.RefusedPreflights(app))))) as client:
        yield client


def test_a_preflight_of_another_origin_is_refused_with_a_problem_and_a_code_in_the_log(
    guarded: TestClient[Any],
) -> None:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        answer = guarded.options("/thing", headers=PREFLIGHT | {"Origin": "https://other.example"})

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "access-control-allow-origin" not in answer.headers
    problem = answer.json()
    assert (problem["code"], problem["instance"]) == ("invalid_request", "/thing")
    assert problem["errors"][0]["field"] == "Origin"
    assert problem["request_id"] == answer.headers["x-request-id"]
    (line,) = [line for line in lines if line["event"] == "http.request"]
    assert (line["code"], line["status"]) == ("invalid_request", 400)


def test_other_requests_reach_the_application(guarded: TestClient[Any]) -> None:
    allowed = guarded.options("/thing", headers=PREFLIGHT | {"Origin": APP})
    foreign = guarded.get("/thing", headers={"Origin": "https://other.example"})
    without = guarded.options("/thing")

    assert (allowed.status_code, foreign.status_code) == (204, 200)
    assert allowed.headers["access-control-allow-origin"] == APP
    assert without.headers["allow"]
