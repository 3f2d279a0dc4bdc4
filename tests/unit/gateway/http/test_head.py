from collections.abc import Iterator

import pytest
from litestar import Litestar, get, post
from litestar.openapi import OpenAPIConfig
from litestar.testing import TestClient

from gateway.http.head import HeadWhereGetIs
from gateway.http.options import answer_options


@get("/things")
async def list_things() -> list[str]:
    return ["thing"]


@post("/things")
async def make_thing() -> None: ...


@post("/commands")
async def command() -> None: ...


@pytest.fixture
def client() -> Iterator[TestClient[Litestar]]:
    app = Litestar(
        [list_things, make_thing, command],
        before_request=answer_options,
        plugins=[HeadWhereGetIs()],
        openapi_config=OpenAPIConfig(title="", version=""),
    )
    with TestClient(app) as client:
        yield client


def test_head_reaches_the_handler_of_get(client: TestClient[Litestar]) -> None:
    answer = client.head("/things")

    assert answer.status_code == 200
    assert answer.headers == client.get("/things").headers


def test_a_path_without_get_has_no_head(client: TestClient[Litestar]) -> None:
    answer = client.head("/commands")

    assert answer.status_code == 405
    assert "HEAD" not in answer.headers["allow"]


def test_options_lists_head(client: TestClient[Litestar]) -> None:
    assert client.options("/things").headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_the_api_description_lists_only_get(client: TestClient[Litestar]) -> None:
    description = client.app.openapi_schema.to_schema()

    assert description["paths"]["/things"].keys() == {"get", "post"}
