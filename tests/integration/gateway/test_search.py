"""`GET /search` on real rows, without vectors; `test_search_vectors.py` has them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, text, update

from gateway.search.hits import show_hits
from schemas.lifecycle import DocumentStatus
from schemas.tables.documents import Document, Page, Revision
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.passages import replaced, searchable

pytestmark = pytest.mark.anyio

TEXTS = {
    "contract": "The carrier shall sign the contracts before loading. Penalty: EUR 1,234.56 a day.",
    "running": "She was running along the river while the report on Water-borne diseases was read.",
    "german": "Die Verträge über Äpfel werden jährlich verlängert; der Straßenverkehr ruht.",
    "act": "Act 1295/2002 amends the annual financial report of the Member States.",
    "reverse": "Report annual figures to the Café in example.com/path or by a.b@example.org.",
}
LANGUAGES = {"german": "de"}


@pytest.fixture
async def ids(api: Api, transaction: BeginSession) -> dict[str, str]:
    """The names of the documents in `TEXTS` by their ids."""
    return {
        await searchable(api, transaction, text, language=LANGUAGES.get(name, "en")): name
        for name, text in TEXTS.items()
    }


async def found(api: Api, q: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401  # any query
    answer = await api.get("/search", q=q, **{"mode": "words", **parameters})
    assert answer.status_code == 200, answer.text
    results: dict[str, Any] = answer.json()
    return results


async def names(api: Api, ids: dict[str, str], q: str, **parameters: Any) -> list[str]:  # noqa: ANN401  # as in `found`
    hits = (await found(api, q, **parameters))["items"]
    return [ids[hit["document_id"]] for hit in hits]


EXPECTED: dict[str, set[str]] = {
    "contract": {"contract"},
    "CONTRACTS": {"contract"},
    "Vertrag": {"german"},
    "apfel": {"german"},
    "cafe": {"reverse"},
    "Café": {"reverse"},
    "strassenverkehr": {"german"},
    "1,234.56": {"contract"},
    "1295/2002": {"act"},
    "a.b@example.org": {"reverse"},
    "water-borne": {"running"},
    "borne": {"running"},
    '"annual financial report"': {"act"},
    '"report annual"': {"reverse"},
    '"annual reports"': set(),
    '"contract"': set(),
    '"contracts"': {"contract"},
    '"of the member"': {"act"},
    '"read she"': set(),
    "runn*": {"running"},
    "verlän*": {"german"},
    "apfe*": {"german"},
    "report -annual": {"running"},
    'report -"annual financial"': {"running", "reverse"},
    "report -runn*": {"act", "reverse"},
    "river OR Äpfel": {"running", "german"},
    '"annual financial" OR runn* OR nothing': {"act", "running"},
    "report AND annual": {"act", "reverse"},
    "report annual": {"act", "reverse", "running"},
    "what is the penalty of the carrier": {"contract"},
    "nothing": set(),
    "the": {"contract", "running", "act", "reverse"},
}
"""Queries, and the documents in `TEXTS` that they find."""


async def test_queries_find_their_passages(api: Api, ids: dict[str, str]) -> None:
    found_by = {q: sorted(await names(api, ids, q)) for q in EXPECTED}

    assert found_by == {q: sorted(expected) for q, expected in EXPECTED.items()}


async def test_passages_with_more_of_the_words_come_first(api: Api, ids: dict[str, str]) -> None:
    assert await names(api, ids, "annual financial report") == ["act", "reverse", "running"]


async def test_a_hit_shows_its_page_and_a_safe_snippet(api: Api, transaction: BeginSession) -> None:
    content = "A <b>bold</b> claim\nabout signing, and the signed paper."
    document_id = await searchable(
        api,
        transaction,
        "nothing here",
        content,
        filename="claim.pdf",
        title="Claims",
        page_labels=["i", "ii"],
    )
    async with transaction() as session:
        await session.execute(
            update(Page)
            .where(Page.number == 2)
            .values(lines=[0, 19, 10, 20, 200, 30, 20, len(content), 12, 40, 220, 50])
        )

    results = await found(api, "sign bold")

    (hit,) = results["items"]
    snippet = hit.pop("snippet")
    assert 0 < hit.pop("score") <= 1
    assert hit == {
        "document_id": document_id,
        "filename": "claim.pdf",
        "title": "Claims",
        "revision": 1,
        "page": 2,
        "page_label": "ii",
        "passage": 0,
        "kind": "text",
        "table": None,
        "start": 0,
        "end": len(content),
        "language": "en",
        "matched_by": ["words"],
        "box": {"left": 10, "top": 20, "right": 220, "bottom": 50},
    }
    assert snippet["html"] == (
        "A &lt;b&gt;<mark>bold</mark>&lt;/b&gt; claim about <mark>signing</mark>, and the"
        " <mark>signed</mark> paper."
    )
    assert [snippet["text"][each["start"] : each["end"]] for each in snippet["highlights"]] == [
        "bold",
        "signing",
        "signed",
    ]
    assert results["mode"] == "words"
    assert results["semantic"] == {"status": "not_wanted", "model": None}
    assert results["is_capped"] is False
    assert results["next_cursor"] is None


async def test_a_passage_of_a_table_is_found_with_its_own_text(
    api: Api, transaction: BeginSession
) -> None:
    await searchable(api, transaction, "Prices of 2024", tables=["Item | Price\nBolt | 17.30"])

    (hit,) = (await found(api, "bolt 17.30", kind="table"))["items"]

    assert (hit["kind"], hit["page"], hit["box"]) == ("table", 1, None)
    assert "<mark>Bolt</mark> | <mark>17.30</mark>" in hit["snippet"]["html"]
    assert (await found(api, "bolt", kind="text"))["items"] == []


async def test_filters_select_passages(api: Api, transaction: BeginSession) -> None:
    old = await searchable(
        api,
        transaction,
        "the same law",
        created_at=datetime(2025, 6, 1, tzinfo=UTC),
        language="de",
        content_type="text/html; charset=utf-8",
        filename="old_100%.html",
        upload={"metadata": {"case": "7", "kind": "x"}},
    )
    new = await searchable(api, transaction, "the same law")
    ids = {old: "old", new: "new"}
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {"new", "old"}),
        ({"language": "de"}, {"old"}),
        ({"language": "DE"}, {"old"}),
        ({"content_type": "Text/HTML; charset=x"}, {"old"}),
        ({"filename_prefix": "old_100%"}, {"old"}),
        ({"filename_prefix": "old_100_"}, set()),
        ({"metadata": "case:7"}, {"old"}),
        ({"metadata": ["case:7", "kind:y"]}, set()),
        ({"created_after": "2026-01-01T00:00:00Z"}, {"new"}),
        ({"created_before": "2026-01-01"}, {"old"}),
        ({"created_after": "2025-01-01", "created_before": "2025-12-31"}, {"old"}),
        ({"document_id": new}, {"new"}),
    ]

    for parameters, expected in cases:
        assert set(await names(api, ids, "law", **parameters)) == expected, parameters


async def test_the_pages_of_a_ranking_hold_every_hit_once(
    api: Api, transaction: BeginSession
) -> None:
    pages = [f"law {'law ' * (number % 3)} and page {number}" for number in range(7)]
    await searchable(api, transaction, *pages)
    whole = [hit["page"] for hit in (await found(api, "law"))["items"]]
    assert sorted(whole) == list(range(1, 8))

    for limit in (1, 3):
        seen: list[int] = []
        cursor = None
        while True:
            more: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
            results = await found(api, "law", limit=limit, **more)
            seen += [hit["page"] for hit in results["items"]]
            cursor = results["next_cursor"]
            if cursor is None:
                break
        assert seen == whole


async def test_a_cursor_goes_on_after_its_hit_although_it_is_gone(
    api: Api, transaction: BeginSession
) -> None:
    ids = {await searchable(api, transaction, "law " * count): str(count) for count in (4, 3, 2, 1)}
    first = await found(api, "law", limit=2)
    shown = [ids[hit["document_id"]] for hit in first["items"]]
    async with transaction() as session:
        gone = first["items"][1]["document_id"]
        await session.execute(delete(Revision).where(Revision.document_id == gone))
        await session.execute(delete(Document).where(Document.id == gone))

    rest = await names(api, ids, "law", cursor=first["next_cursor"])

    assert len(shown) == len(rest) == 2
    assert set(shown) | set(rest) == set(ids.values())


async def test_a_cursor_of_another_search_is_refused(api: Api, transaction: BeginSession) -> None:
    await searchable(api, transaction, "law", "law")
    cursor = (await found(api, "law", limit=1))["next_cursor"]

    answers = [
        await api.get("/search", q="law", mode="words", language="de", cursor=cursor),
        await api.get("/search", q="laws", mode="words", cursor=cursor),
        await api.get("/search", q="law", cursor="x"),
    ]

    assert {problem(answer) for answer in answers} == {(400, "invalid_request")}


async def test_a_ranking_ends_after_its_limit(serve: Serve, transaction: BeginSession) -> None:
    async with serve(search_results_max=3, search_candidates=4) as api:
        await searchable(api, transaction, *(["law"] * 6))

        first = await found(api, "law", limit=2)
        second = await found(api, "law", limit=2, cursor=first["next_cursor"])

    assert first["is_capped"] is True
    assert (len(first["items"]), len(second["items"])) == (2, 1)
    assert second["next_cursor"] is None


async def test_of_more_passages_than_are_compared_those_with_all_words_are_found(
    serve: Serve,
    transaction: BeginSession,
) -> None:
    async with serve(search_candidates=3) as api:
        await searchable(api, transaction, *(["law"] * 6), *(["tax"] * 6), "law and tax")

        hits = (await found(api, "law tax"))["items"]

    assert hits[0]["page"] == 13


async def test_only_passages_that_clients_see_are_found(
    api: Api, stranger: Api, transaction: BeginSession
) -> None:
    ids = {
        await searchable(api, transaction, "the law"): "mine",
        await searchable(stranger, transaction, "the law"): "theirs",
    }
    hidden = await searchable(api, transaction, "the law")
    async with transaction() as session:
        await session.execute(
            update(Document)
            .where(Document.id == hidden)
            .values(revision_id=None, status=DocumentStatus.READING)
        )

    assert await names(api, ids, "law") == ["mine"]
    assert await names(stranger, ids, "law") == ["theirs"]
    assert await names(api, ids, "-law the") == []


async def test_a_document_that_changes_during_the_search_is_found_in_its_new_revision(
    api: Api, transaction: BeginSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the ranking and the answer the document gets another revision."""
    document_id = await searchable(api, transaction, "the law")
    calls = 0

    async def replace_and_show(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # as `show_hits`
        nonlocal calls
        calls += 1
        if calls == 1:
            await replaced(transaction, document_id, "", "the law")
        return await show_hits(*arguments, **named)

    monkeypatch.setattr("gateway.search.find.show_hits", replace_and_show)

    (hit,) = (await found(api, "law"))["items"]

    assert calls == 2
    assert (hit["revision"], hit["page"]) == (2, 2)


async def test_a_query_that_cannot_be_read_is_refused(api: Api) -> None:
    for q in ("", " ", "-law", '"law', "law OR", "la*", '"..."', "a" * 513, "law\0"):
        answer = await api.get("/search", q=q)
        status, code = problem(answer)
        assert status == 400, q
        assert code in {"search_query_invalid", "invalid_request"}, q
        assert answer.json()["detail"]


async def test_any_query_is_answered(api: Api, ids: dict[str, str]) -> None:
    """Whatever a client writes, no server error: lexemes of PostgreSQL are never taken as syntax."""
    assert ids
    pieces = st.sampled_from(
        ['"', "'", "\\", "-", "*", " ", "&", "|", "!", "(", ":A", "<->", "OR", "#t:", "law", "ru"]
    )
    queries = st.one_of(
        st.lists(st.one_of(pieces, st.characters(exclude_categories=["Cs"])), max_size=30),
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60),
    ).map("".join)
    loop = asyncio.get_running_loop()

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(queries)
    def ask(q: str) -> None:
        asking = asyncio.run_coroutine_threadsafe(api.get("/search", q=q, mode="words"), loop)
        answer = asking.result(timeout=30)
        assert answer.status_code in {200, 400}, (q, answer.text)

    await asyncio.to_thread(ask)


async def test_a_search_that_takes_too_long_is_refused(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(search_timeout=timedelta(milliseconds=100)) as api, transaction() as session:
        await session.execute(text("LOCK TABLE passages IN ACCESS EXCLUSIVE MODE"))

        answer = await api.get("/search", q="law", mode="words")

    assert problem(answer) == (503, "search_timeout")
    assert answer.headers["retry-after"] == "5"
