from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from litestar import Litestar, get
from litestar.testing import TestClient

from gateway.http import cors
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
