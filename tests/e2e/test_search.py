"""What is in documents is found with its page, also while they are read again, deleted and indexed again."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dev.client import Client
from dev.stack.stack import Stack
from schemas.settings import EmbeddingModelName
from tests.e2e import searchable
from tests.e2e.searchable import assert_hits_stay_right_through_changes, submitted
from tests.stack import fresh_name

pytestmark = pytest.mark.timeout(300)

OTHER_MODEL = EmbeddingModelName.USE
"""Not the default, so that its vectors are made beside those of the default."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """A tenant with an English and a German document, by name."""

    client: Client
    document_ids: dict[str, str]


@pytest.fixture(scope="module")
def library(system: Stack) -> Iterator[Library]:
    with Client(system.url, api_key=system.create_api_key(tenant=fresh_name())) as client:
        contents = {"rules": searchable.rules(), "regeln": searchable.regeln()}
        yield Library(
            client=client,
            document_ids={
                name: submitted(client, content, filename=f"{name}.pdf")["result"]["document_id"]
                for name, content in contents.items()
            },
        )


@pytest.mark.parametrize(
    ("query", "document", "page", "shown"),
    [
        pytest.param("quarantine", "rules", 3, "quarantine", id="a word"),
        pytest.param('"bill of lading"', "rules", 5, "bill of lading", id="a phrase"),
        pytest.param("apples must stay cool", "rules", 2, "refrigerated", id="a paraphrase"),
        pytest.param("1,275.50", "rules", 4, "1,275.50", id="a number in a table"),
        pytest.param(
            "Wann muss ich meine Ware abholen?", "regeln", 2, "abgeholt", id="a German question"
        ),
    ],
)
def test_a_query_finds_the_page_with_its_answer(
    library: Library, *, query: str, document: str, page: int, shown: str
) -> None:
    answer = library.client.get("/search", q=query).json()

    first = answer["items"][0]
    assert (first["document_id"], first["page"]) == (library.document_ids[document], page), answer
    assert shown in first["snippet"]["text"]
    text = library.client.get(f"/documents/{first['document_id']}/pages/{page}").json()["text"]
    assert shown in (text[first["start"] : first["end"]] or text)


def test_a_number_in_a_table_is_found_as_a_row_with_its_header(library: Library) -> None:
    (hit, *_) = library.client.get("/search", q="1,275.50", kind="table").json()["items"]
    assert (hit["kind"], hit["page"]) == ("table", searchable.TARIFF_PAGE)

    document = f"/documents/{library.document_ids['rules']}"
    (table,) = library.client.get(f"{document}/tables").json()["items"]
    assert (table["page"], table["header_row_count"]) == (searchable.TARIFF_PAGE, 1)
    cells = library.client.get(f"{document}/tables/{table['number']}").json()["cells"]
    assert {(cell["row"], cell["column"]): cell["text"] for cell in cells} == {
        (row, column): text
        for row, texts in enumerate(searchable.TARIFF)
        for column, text in enumerate(texts)
    }


def test_another_tenant_finds_nothing(system: Stack, library: Library) -> None:
    assert library.client.get("/search", q="quarantine").json()["items"]
    with Client(system.url, api_key=system.create_api_key(tenant=fresh_name())) as stranger:
        for mode in ("hybrid", "words", "vectors"):
            assert stranger.get("/search", q="quarantine", mode=mode).json()["items"] == []


def test_hits_stay_right_while_documents_are_read_again_deleted_and_indexed_by_another_model(
    system: Stack, client: Client
) -> None:
    assert_hits_stay_right_through_changes(system, client, model=OTHER_MODEL)
