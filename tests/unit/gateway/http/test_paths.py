"""Values in paths, on an application with the same check as the gateway."""

from typing import Any
from uuid import UUID

import pytest
from litestar import Litestar, Request, Response, get
from litestar.params import FromPath
from litestar.testing import TestClient

from gateway.http import paths

ID = "01234567-89ab-cdef-0123-456789abcdef"


@get("/things/{thing_id:uuid}/parts/{index:int}")
async def show(*, thing_id: FromPath[UUID], index: FromPath[int]) -> str:
    return f"{thing_id} {index}"


@get("/things")
async def list_all() -> str:
    return "all"


async def check(request: Request[Any, Any, Any]) -> Response[None] | None:
    paths.check(request)
    return None


@pytest.fixture(scope="module")
def client() -> TestClient[Litestar]:
    return TestClient(Litestar([show, list_all], before_request=check))


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/things", "all"),
        (f"/things/{ID}/parts/0", f"{ID} 0"),
        (f"/things/{ID}/parts/10/", f"{ID} 10"),
        (f"/things/{ID}/parts/-1", f"{ID} -1"),
        (f"/things//{ID}//parts/007", f"{ID} 7"),
        (f"/things/{ID.upper()}/parts/1", f"{ID} 1"),
        (f"/things/{ID.replace('-', '')}/parts/1", f"{ID} 1"),
        (f"/things/urn:uuid:{ID}/parts/%31", f"{ID} 1"),
    ],
)
def test_a_value_in_ascii_digits_is_read(
    client: TestClient[Litestar], path: str, answer: str
) -> None:
    assert client.get(path).text == answer


@pytest.mark.parametrize(
    "index",
    [
        "1_0",
        "\u0660",
        "\uff11",
        "²",
        "+1",
        "%2B1",
        "-0",
        "--1",
        "%201",
        "1%20",
        "1%0A",
        "1.0",
        "1e1",
        "0x1",
    ],
)
def test_another_number_is_no_path(client: TestClient[Litestar], index: str) -> None:
    assert client.get(f"/things/{ID}/parts/{index}").status_code == 404


@pytest.mark.parametrize(
    "thing_id",
    [
        "0_23456789abcdef0123456789abcdef",
        "\uff11" * 32,
        "%2B1234567-89ab-cdef-0123-456789abcdef",
        "%201234567-89ab-cdef-0123-456789abcdef",
    ],
)
def test_another_id_is_no_path(client: TestClient[Litestar], thing_id: str) -> None:
    assert client.get(f"/things/{thing_id}/parts/1").status_code == 404
