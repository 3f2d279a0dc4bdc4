"""`GET /search` with vectors of the real model."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text, update

from schemas.lifecycle import DocumentStatus
from schemas.settings import EmbeddingModelName
from schemas.tables.documents import Document
from schemas.tables.passages import EmbeddingModel
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve
from tests.integration.gateway.passages import searchable, vectors_added

pytestmark = pytest.mark.anyio

PAGES = {
    "alarm": "Smoke detectors warn the people in a house of a fire.",
    "bullying": "One student in five was harassed by colleagues of the university.",
    "budget": "The member states pay their contributions to the budget in January.",
    "weather": "Heavy rain and storms are expected in the mountains on Monday.",
}


@pytest.fixture(params=[20_000, 1], ids=["exact", "by index"])
async def searched(request: pytest.FixtureRequest, serve: Serve) -> AsyncIterator[Api]:
    """A gateway whose tenant has `PAGES` with vectors, beside a hidden document and a stranger's."""
    async with serve(search_exact_max=request.param) as api:
        yield api


@pytest.fixture
async def names(
    searched: Api, make_key: MakeKey, transaction: BeginSession
) -> dict[tuple[str, int], str]:
    """The names of the pages by document and number."""
    stranger = searched.of(await make_key(tenant="globex"))
    document_id = await searchable(searched, transaction, *PAGES.values())
    hidden = await searchable(searched, transaction, *PAGES.values())
    await searchable(stranger, transaction, *PAGES.values())
    await vectors_added(transaction)
    async with transaction() as session:
        await session.execute(
            update(Document)
            .where(Document.id == hidden)
            .values(revision_id=None, status=DocumentStatus.READING)
        )
    return {(document_id, page): name for page, name in enumerate(PAGES, start=1)}


async def found(api: Api, q: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401  # any query
    answer = await api.get("/search", q=q, **parameters)
    assert answer.status_code == 200, answer.text
    results: dict[str, Any] = answer.json()
    return results


async def test_other_words_and_another_language_find_the_passage_that_is_meant(
    searched: Api, names: dict[tuple[str, int], str]
) -> None:
    async def pages(q: str, **parameters: Any) -> list[str]:  # noqa: ANN401  # as in `found`
        results = await found(searched, q, **parameters)
        assert results["semantic"]["status"] == "ok"
        assert results["mode"] == parameters.get("mode", "hybrid")
        return [names[hit["document_id"], hit["page"]] for hit in results["items"]]

    assert (await pages("devices that notice burning in homes"))[0] == "alarm"
    assert (await pages("Wohnungen mit Rauchmeldern", mode="vectors"))[0] == "alarm"
    assert (await pages("mobbing among academics"))[0] == "bullying"
    assert (await pages("storms", mode="hybrid"))[0] == "weather"
    # What the words exclude or require holds for vectors too.
    assert "alarm" not in await pages("devices that notice burning in homes -fire")
    assert await pages('devices that notice burning in homes "heavy rain"') == ["weather"]
    assert await pages("devices that notice burning", language="de") == []
    assert (await pages("devices that notice burning", kind="text"))[0] == "alarm"
    assert await pages("devices that notice burning", filename_prefix="b") == []


@pytest.mark.usefixtures("names")
async def test_a_hit_says_what_led_to_it(searched: Api) -> None:
    results = await found(searched, "what do storms and rain do in the mountains", limit=1)

    (hit,) = results["items"]
    assert hit["matched_by"] == ["words", "vectors"]
    # The other passages have none of the words, and are not near.
    assert results["next_cursor"] is None


@pytest.mark.usefixtures("names")
async def test_a_word_without_a_meaning_finds_nothing(searched: Api) -> None:
    assert (await found(searched, "xqzzy"))["items"] == []


async def test_without_vectors_words_answer_and_say_why(
    serve: Serve, transaction: BeginSession
) -> None:
    """No model in the settings, no active model in the database, one that this version lacks."""
    async with serve(embedding_model=EmbeddingModelName.NONE) as api:
        await searchable(api, transaction, PAGES["alarm"])
        off = await found(api, "smoke")
        refused = await api.get("/search", q="smoke", mode="vectors")
    async with serve() as api:
        none = await found(api, "smoke")
        await vectors_added(transaction)
        async with transaction() as session:
            await session.execute(update(EmbeddingModel).values(name="unknown-1"))
        unknown = await found(api, "smoke")
        unavailable = await api.get("/search", q="smoke", mode="vectors")

    assert [each["semantic"]["status"] for each in (off, none, unknown)] == [
        "off",
        "building",
        "failed",
    ]
    for results in (off, none, unknown):
        assert results["mode"] == "words"
        assert len(results["items"]) == 1
    assert problem(refused) == (400, "invalid_request")
    assert problem(unavailable) == (503, "unavailable")


async def test_vectors_that_take_too_long_are_left_out(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(search_timeout=timedelta(milliseconds=300)) as api:
        await searchable(api, transaction, PAGES["alarm"])
        await vectors_added(transaction)
        await found(api, "smoke")
        async with transaction() as session:
            await session.execute(text("LOCK TABLE passage_embeddings IN ACCESS EXCLUSIVE MODE"))
            results = await found(api, "smoke")

    assert results["semantic"]["status"] == "timeout"
    assert len(results["items"]) == 1
