"""The recognition of a document goes on after a page that kills its child."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Protocol
from uuid import uuid4

import psutil
import pytest

from pipeline.ingest import recognizing
from pipeline.ingest.errors import DocumentCrashed, DocumentError
from pipeline.ingest.extractors import registry
from pipeline.ingest.extractors.registry import Format
from pipeline.ingest.frames import Opening, PageReading, Recognize
from pipeline.ingest.ocr_reading import GIVEN_UP, NO_TIME, DocumentRecognition, LeftPages
from schemas.ids import TenantId
from schemas.outcomes import Outcome
from schemas.settings import OcrEngineName
from tests.factories.reading_limits import READING_LIMITS
from tests.fakes.ocr import FakeEngine
from tests.integration.sandbox.conftest import Bench, NewChildren
from tests.integration.sandbox.scripted import MEDIA_TYPE

DEATHS_MAX = 3


class Recognition(Protocol):
    """Recognises every page of a script."""

    def __call__(
        self,
        *lines: str,
        page_timeout: timedelta = ...,
        time_left: timedelta = ...,
        while_waiting: Callable[[], None] = ...,
    ) -> DocumentRecognition: ...


@pytest.fixture(autouse=True)
def scripts_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Format(
        extractor="tests.integration.sandbox.scripted:ScriptExtractor",
        media_types=(MEDIA_TYPE,),
        suffixes=(),
    )
    monkeypatch.setattr(registry, "_BY_MEDIA_TYPE", MappingProxyType({MEDIA_TYPE: script}))
    engine = FakeEngine(lambda *_: [("A line of text.", 0.9)])
    monkeypatch.setitem(recognizing._engines, OcrEngineName.TESSERACT, engine)  # noqa: SLF001  # inherited by the child


@pytest.fixture
def recognition(reader: Bench, children: NewChildren, tmp_path: Path) -> Iterator[Recognition]:
    def start(
        *lines: str,
        page_timeout: timedelta = timedelta(seconds=20),
        time_left: timedelta = timedelta(seconds=60),
        while_waiting: Callable[[], None] = lambda: None,
    ) -> DocumentRecognition:
        path = tmp_path / "script"
        path.write_text("\n".join(lines))
        request = Recognize(
            opening=Opening(path=str(path), media_type=MEDIA_TYPE, limits=READING_LIMITS),
            pages=tuple(range(1, len(lines) + 1)),
            engine=OcrEngineName.TESSERACT,
            data="",
            languages=("eng",),
            is_language_known=True,
            dpi=72,
            pixels_max=1_000,
            page_timeout=page_timeout,
            confidence_min=0.5,
            time_left=time_left,
        )
        return DocumentRecognition(
            request,
            reader=reader.reader,
            tenant_id=TenantId(uuid4()),
            deaths_max=DEATHS_MAX,
            while_waiting=while_waiting,
        )

    yield start
    reader.reader.close()
    assert children() == []


def seen(recognition: DocumentRecognition) -> list[tuple[int, Outcome]]:
    """Return number and outcome of each page, in the order of their arrival."""
    found: list[tuple[int, Outcome]] = []
    for result in recognition.run():
        if isinstance(result, LeftPages):
            found += ((number, result.outcome) for number in result.numbers)
        else:
            found.append((result.number, result.outcome))
    return found


def test_every_page_is_recognised_and_enriched(recognition: Recognition) -> None:
    document = recognition("one", "two")

    pages = list(document.run())

    assert [(page.number, page.text) for page in pages if isinstance(page, PageReading)] == [
        (1, "A line of text."),
        (2, "A line of text."),
    ]
    assert document.read is not None


@pytest.mark.parametrize(
    ("deed", "outcome"),
    [
        ("always crash", Outcome.CRASHED),
        ("exhaust", Outcome.OUT_OF_MEMORY),
        ("fail", Outcome.CORRUPT),
        ("spin", Outcome.TIMEOUT_PAGE),
    ],
)
def test_a_page_that_fails_is_left_and_the_next_one_goes_on(
    recognition: Recognition, deed: str, outcome: Outcome
) -> None:
    document = recognition("one", deed, "three", page_timeout=timedelta(seconds=1))

    assert seen(document) == [(1, Outcome.COMPLETE), (2, outcome), (3, Outcome.COMPLETE)]


def test_a_page_that_no_signal_interrupts_is_killed_and_the_next_one_goes_on(
    recognition: Recognition,
) -> None:
    document = recognition("one", "compute", "three", page_timeout=timedelta(seconds=0.5))

    assert seen(document) == [
        (1, Outcome.COMPLETE),
        (2, Outcome.TIMEOUT_PAGE),
        (3, Outcome.COMPLETE),
    ]
    assert document.read is None


def test_pages_after_three_deaths_in_a_row_are_left(recognition: Recognition) -> None:
    document = recognition("one", *["always crash"] * DEATHS_MAX, "five", "six")

    *_, last = document.run()

    assert last == LeftPages(numbers=(5, 6), reason=GIVEN_UP)


def test_deaths_that_are_not_in_a_row_do_not_end_the_recognition(recognition: Recognition) -> None:
    document = recognition(*["always crash", "fine"] * DEATHS_MAX)

    assert seen(document) == [
        (number, Outcome.CRASHED if number % 2 else Outcome.COMPLETE)
        for number in range(1, 2 * DEATHS_MAX + 1)
    ]


def test_pages_without_a_turn_are_left(recognition: Recognition) -> None:
    document = recognition("one", "compute", "three", time_left=timedelta(seconds=2))

    first, last = document.run()

    assert isinstance(first, PageReading)
    assert last == LeftPages(numbers=(2, 3), reason=NO_TIME)


def test_a_child_killed_from_outside_is_a_reason_to_try_again(
    recognition: Recognition, children: NewChildren
) -> None:
    def kill() -> None:
        os.kill(children()[0].pid, signal.SIGKILL)

    document = recognition("compute", while_waiting=kill)

    with pytest.raises(DocumentCrashed) as raised:
        list(document.run())
    assert raised.value.retryable


def test_a_cancellation_ends_the_child(recognition: Recognition, children: NewChildren) -> None:
    def cancel() -> None:
        raise InterruptedError

    document = recognition("compute", while_waiting=cancel)

    with pytest.raises(InterruptedError):
        list(document.run())
    assert all(
        not child.is_running() or child.status() == psutil.STATUS_ZOMBIE for child in children()
    )


def test_a_document_that_does_not_open_is_an_error(recognition: Recognition) -> None:
    with pytest.raises(DocumentError):
        list(recognition("open: fail").run())
