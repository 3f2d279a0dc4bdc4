"""The catalogue of events over HTTP."""

import msgspec
import pytest

from schemas import topology
from schemas.events.catalogue import schema_of
from schemas.events.envelope import decode
from schemas.events.examples import example_envelope
from tests.integration.gateway.api import Api, problem

pytestmark = pytest.mark.anyio


async def test_the_catalogue_lists_every_delivered_event(api: Api) -> None:
    answer = await api.get("/event-types")

    assert answer.status_code == 200
    items = answer.json()["items"]
    assert [item["type"] for item in items] == sorted(topology.DELIVERED)
    assert [item["type"] for item in items if not item["selectable"]] == ["ping"]
    for item in items:
        assert (await api.get(f"/event-types/{item['type']}")).json() == item


async def test_a_type_has_its_schema_and_a_whole_event_as_example(api: Api) -> None:
    view = (await api.get("/event-types/upload.stored")).json()

    assert view["schema"] == schema_of("upload.stored")
    assert view["description"] == "The upload's bytes are stored as one verified object."
    assert decode(msgspec.json.encode(view["example"])) == example_envelope("upload.stored")


@pytest.mark.parametrize("event_type", ["upload.exploded", "upload.finalized", "upload.*"])
async def test_a_type_that_no_endpoint_receives_is_not_found(api: Api, event_type: str) -> None:
    answer = await api.get(f"/event-types/{event_type}")

    assert problem(answer) == (404, "event_type_not_found")
    assert "upload.stored" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/event-types", "/event-types/ping"])
async def test_the_catalogue_is_not_sent_again_to_a_client_that_has_it(api: Api, path: str) -> None:
    first = await api.get(path)
    assert first.headers["cache-control"] == "private, max-age=300"
    etag = first.headers["etag"]

    again = await api.ask("GET", path, headers={"If-None-Match": f'"old", W/{etag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    other = await api.ask("GET", path, headers={"If-None-Match": '"old"'})
    assert other.json() == first.json()
