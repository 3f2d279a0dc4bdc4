"""Documents to search for, with the page that answers each query, and searches while they change."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from io import BytesIO
from threading import Event, Thread
from typing import Any, Final
from uuid import uuid4

import httpx
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import (
    Flowable,
    PageBreak,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

from dev.client import Client
from dev.stack.stack import Stack
from schemas.runtime.embedding.chosen import MODELS
from schemas.settings import EmbeddingModelName
from tests.eventually import eventually

TIMEOUT: Final = timedelta(minutes=3)

RULES: Final = (
    (
        "The harbourmaster allots a berth to every vessel before it enters the lock. A vessel without a"
        " berth waits at the outer buoys, and its master listens on channel twelve."
    ),
    (
        "Perishable food, such as fruit and fish, is kept in the refrigerated shed at less than four"
        " degrees. The keeper of the shed reads the thermometers twice a day."
    ),
    (
        "Animals from overseas stay in quarantine for three weeks. A veterinary surgeon examines them"
        " before they are released to their owners."
    ),
    "The charges below hold for the whole year. They are payable to the harbour office in advance.",
    (
        "The bill of the ship's chandler is lading for nobody: it names provisions, ropes and paint."
        " Whoever signs the bill of lading answers for the number of crates."
    ),
)
"""The pages of the English document; the fourth has the table."""

TARIFF: Final = (
    ("Service", "Unit", "Charge in EUR"),
    ("Hire of the floating crane", "hour", "1,275.50"),
    ("Pilotage to the outer buoys", "vessel", "846.20"),
    ("Storage in the refrigerated shed", "day", "93.75"),
)
TARIFF_PAGE: Final = 4

REGELN: Final = (
    (
        "Die Schleuse öffnet um sechs Uhr morgens und schließt bei Einbruch der Dunkelheit. Schiffe mit"
        " gefährlicher Ladung werden nur am Tag geschleust."
    ),
    (
        "Güter, die im Lagerhaus liegen, müssen spätestens nach dreißig Tagen abgeholt werden. Danach"
        " versteigert die Hafenverwaltung die Waren zugunsten der Gläubiger."
    ),
    (
        "Hunde sind auf dem Gelände des Hafens an der Leine zu führen. Das Baden ist im Hafenbecken"
        " verboten, weil die Strömung stark ist."
    ),
)
"""The pages of the German document."""


def rules() -> bytes:
    style = getSampleStyleSheet()["BodyText"]
    table = Table(TARIFF, style=[("GRID", (0, 0), (-1, -1), 0.5, colors.black)])
    pages: list[list[Flowable]] = [[Paragraph(text, style)] for text in RULES]
    pages[TARIFF_PAGE - 1] += [Spacer(1, 20), table]
    return _printed(pages, title="Rules of the harbour")


def regeln() -> bytes:
    style = getSampleStyleSheet()["BodyText"]
    return _printed([[Paragraph(text, style)] for text in REGELN], title="Hafenordnung")


def notice(word: str) -> bytes:
    """A document of two pages; the word is on the second alone."""
    style = getSampleStyleSheet()["BodyText"]
    texts = (
        "The first page of this notice gives the address of the harbour office.",
        f"The cargo {word} arrives tomorrow, and the office tells its owners at once.",
    )
    return _printed([[Paragraph(text, style)] for text in texts], title="Notice")


def _printed(pages: Sequence[Sequence[Flowable]], *, title: str) -> bytes:
    file = BytesIO()
    story = [flowable for page in pages for flowable in (*page, PageBreak())]
    SimpleDocTemplate(file, pagesize=A4, title=title).build(story)
    return file.getvalue()


def submitted(client: Client, content: bytes, *, filename: str) -> dict[str, Any]:
    """Submit a PDF in a form; return its settled job once search has everything of its document."""
    answer = client.http.post(
        "/upload-async", files={"file": (filename, content, "application/pdf")}
    )
    answer.raise_for_status()
    job = client.wait_until_settled(answer.json()["job_id"], timeout=TIMEOUT)
    assert job["status"] == "completed", job["error"]
    await_index(client, job["result"]["document_id"])
    return job


def await_index(client: Client, document_id: str) -> None:
    """Return once the tables of a document are found and its vectors are made."""
    eventually(
        lambda: client.get(f"/documents/{document_id}").json(),
        until=lambda document: (document["tables"], document["search"]) == ("complete", "complete"),
        within=TIMEOUT,
    )


@dataclass(kw_only=True)
class Watched:
    """A document that is searched for by its word without a pause.

    A deletion takes effect between its request and its answer, so in between both findings are right.
    """

    client: Client
    word: str
    document_id: str
    upload_id: str
    deletion_began: float | None = None
    deletion_ended: float | None = None
    searches: int = 0
    hits: int = 0
    wrong: list[str] = field(default_factory=list)

    def delete(self, path: str) -> None:
        """Send a request that deletes the document."""
        self.deletion_began = time.monotonic()
        self.client.http.delete(path).raise_for_status()
        self.deletion_ended = time.monotonic()

    def search(self, http: httpx.Client) -> None:
        """Search once; note a missing hit, a hit of a deleted document, and a hit to a page that is gone."""
        was_deleted = self.deletion_ended is not None
        before = None if was_deleted else self._revision(http)
        answer = http.get("/search", params={"q": self.word}).raise_for_status().json()
        hits = [hit for hit in answer["items"] if hit["document_id"] == self.document_id]
        if answer["semantic"]["status"] != "ok":
            self.wrong.append(f"the meaning was not searched: {answer['semantic']}")
        self.searches += 1
        by_word = [hit for hit in hits if hit["snippet"]["highlights"]]
        self.hits += bool(by_word)
        if was_deleted and hits:
            self.wrong.append(f"found after its deletion: {hits}")
        if not by_word and self.deletion_began is None:
            self.wrong.append(f"not found: {answer}")
        for hit in hits:
            if before is not None and hit["revision"] < before:
                self.wrong.append(f"a hit of an earlier reading than {before}: {hit}")
            self._open(hit, http)

    def _revision(self, http: httpx.Client) -> int | None:
        answer = http.get(f"/documents/{self.document_id}")
        return int(answer.json()["revision"]) if answer.is_success else None

    def _open(self, hit: dict[str, Any], http: httpx.Client) -> None:
        """Read the page of a hit: it has the passage."""
        answer = http.get(f"/documents/{self.document_id}/pages/{hit['page']}")
        if answer.is_success:
            passage = " ".join(answer.json()["text"][hit["start"] : hit["end"]].split())
            # A hit by meaning alone has no highlight.
            sought = (
                self.word
                if hit["snippet"]["highlights"]
                else " ".join(hit["snippet"]["text"].strip("… ").split())
            )
            if not passage or sought not in passage:
                self.wrong.append(f"the page has no such passage: {hit}")
        elif self.deletion_began is None:
            self.wrong.append(f"the page is gone: {hit}, {answer.text}")


@contextmanager
def searched(watched: Sequence[Watched], *, clients: int = 2) -> Iterator[Callable[[], None]]:
    """Search for the documents during the block, in threads.

    Yields a function that returns once every document was searched for again. Raises what a search raised.
    """
    stopped = Event()
    errors: list[BaseException] = []

    def search(number: int) -> None:
        like = watched[0].client.http
        with httpx.Client(
            base_url=like.base_url, headers=like.headers, timeout=60, trust_env=False
        ) as http:
            try:
                while not stopped.is_set():
                    for each in watched[number::clients]:
                        each.search(http)
            except httpx.HTTPError as error:
                errors.append(error)

    def searched_again() -> None:
        before = [each.searches for each in watched]
        eventually(
            lambda: (
                errors
                or all(each.searches > n + 1 for each, n in zip(watched, before, strict=True))
            ),
            until=bool,
            within=TIMEOUT,
        )

    threads = [Thread(target=search, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield searched_again
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert [wrong for each in watched for wrong in each.wrong[:3]] == []


def assert_hits_stay_right_through_changes(
    system: Stack,
    client: Client,
    *,
    model: EmbeddingModelName,
    disturb: Callable[[], None] = lambda: None,
) -> None:
    """Read documents again, delete some, and let search use another model, while clients search for them.

    Args:
        system: a whole system.
        client: of any tenant.
        model: not the one in use.
        disturb: called while documents are read, and while vectors are made.
    """
    kept, read_again, deleted, purged = documents = [_watched(client) for _ in range(4)]
    with searched(documents) as searched_again, ThreadPoolExecutor(1) as command:
        searched_again()
        answer = client.http.post(f"/documents/{read_again.document_id}/reprocess")
        disturb()
        job = client.wait_until_settled(answer.json()["job_id"], timeout=TIMEOUT)
        assert job["status"] == "completed", job["error"]
        searched_again()
        deleted.delete(f"/documents/{deleted.document_id}")
        purged.delete(f"/uploads/{purged.upload_id}?purge=true")
        searched_again()
        reindex = command.submit(system.run, ("waybill", "reindex", "--model", model))
        disturb()
        reindex.result()
        searched_again()

    assert client.get(f"/documents/{read_again.document_id}").json()["revision"] == 2
    answer = client.get("/search", q=kept.word, mode="vectors").json()
    assert answer["semantic"] == {"status": "ok", "model": MODELS[model].name}
    assert kept.document_id in {hit["document_id"] for hit in answer["items"]}
    assert min(each.hits for each in documents) > 0


def _watched(client: Client) -> Watched:
    word = f"q{uuid4().hex[:10]}"
    job = submitted(client, notice(word), filename=f"{word}.pdf")
    return Watched(
        client=client,
        word=word,
        document_id=job["result"]["document_id"],
        upload_id=job["upload_id"],
    )
