from typing import Any

import pytest

from tests.integration.gateway.api import Api, problem

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"filename": ""}, "filename"),
        ({"filename": "a\x00b"}, "filename"),
        ({"filename": "a\nb"}, "filename"),
        ({"filename": "a\n"}, "filename"),
        ({"filename": "a" * 1025}, "filename"),
        ({"filename": None}, "filename"),
        ({"size": -1}, "size"),
        ({"size": 2**63}, "size"),
        ({"size": True}, "size"),
        ({"size": 1.5}, "size"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"content_type": "text/plain\r\nX-Evil: 1"}, "content_type"),
        ({"content_type": "text/plain\n"}, "content_type"),
        ({"content_type": "nonsense"}, "content_type"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"sha256": "G" * 64}, "sha256"),
        ({"sha256": "0" * 64 + "\n"}, "sha256"),
        ({"metadata": {"k": "a\x00"}}, "metadata"),
        ({"metadata": {"k\x00": "a"}}, "metadata"),
        ({"metadata": {"k": 5}}, "metadata"),
        ({"metadata": {str(number): "" for number in range(65)}}, "metadata"),
        ({"metadata": {"k": "v" * 2049}}, "metadata"),
    ],
)
async def test_an_invalid_field_is_refused_and_named(
    shared_api: Api, wrong: dict[str, Any], field: str
) -> None:
    answer = await shared_api.ask(
        "POST", "/uploads", json={"filename": "a.bin", "size": 5, **wrong}
    )

    assert problem(answer) == (400, "invalid_request")
    assert answer.json()["errors"][0]["field"].startswith(field)


async def test_an_unknown_field_is_refused(shared_api: Api) -> None:
    assert problem(await shared_api.create(size=5, priority="high")) == (400, "invalid_request")
