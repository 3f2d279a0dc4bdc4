from collections.abc import Iterator
from uuid import UUID

import pytest
from litestar import Litestar, Router, delete, get, post
from litestar.params import FromPath
from litestar.testing import TestClient

from gateway.http.options import answer_options

ONE = "/things/00000000-0000-0000-0000-000000000001"


@get("/things")
async def list_things() -> None: ...


@post("/things")
async def make_thing() -> None: ...


@get("/things/{thing_id:uuid}")
async def show_thing(thing_id: FromPath[UUID]) -> None: ...


@delete("/things/{thing_id:uuid}")
async def drop_thing(thing_id: FromPath[UUID]) -> None: ...


@pytest.fixture
def client() -> Iterator[TestClient[Litestar]]:
    """A client of an application with several handlers on one path."""
    things = Router("/", route_handlers=[list_things, show_thing, make_thing, drop_thing])
    app = Litestar([things], before_request=answer_options, openapi_config=None)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "methods"), [("/things", "GET, OPTIONS, POST"), (ONE, "DELETE, GET, OPTIONS")]
)
def test_options_lists_every_method_of_a_path(
    client: TestClient[Litestar], path: str, methods: str
) -> None:
    answer = client.options(path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, methods, b"")


def test_methods_other_than_options_reach_their_handlers(client: TestClient[Litestar]) -> None:
    assert client.get("/things").status_code == 200
    assert client.delete(ONE).status_code == 204
