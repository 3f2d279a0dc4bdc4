"""A page is rendered in a child; a page without an image says why, and harms no other page."""

import io
import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Protocol
from uuid import uuid4

import pytest
from PIL import Image

from pipeline.ingest import rendering
from pipeline.ingest.description import THUMBNAIL_SIDE
from pipeline.ingest.errors import PageNotRendered
from pipeline.ingest.extractors import registry
from pipeline.ingest.extractors.registry import Format
from pipeline.ingest.frames import Opening
from pipeline.ingest.rendering import FIGURE_SIDE
from schemas.ids import TenantId
from schemas.policy import media_types
from tests.factories import pdfs
from tests.factories.reading_limits import READING_LIMITS
from tests.integration.sandbox.conftest import Bench, NewChildren
from tests.integration.sandbox.scripted import MEDIA_TYPE


class Render(Protocol):
    """Renders a page of a file in a child."""

    def __call__(
        self,
        content: bytes,
        page: int = ...,
        *,
        box: tuple[int, int, int, int] | None = ...,
        media_type: str = ...,
        while_waiting: Callable[[], None] = ...,
    ) -> Image.Image: ...


@pytest.fixture(autouse=True)
def scripts_are_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Format(
        extractor="tests.integration.sandbox.scripted:ScriptExtractor",
        media_types=(MEDIA_TYPE,),
        suffixes=(),
    )
    known = {**registry._BY_MEDIA_TYPE, MEDIA_TYPE: script}  # noqa: SLF001  # inherited by the child
    monkeypatch.setattr(registry, "_BY_MEDIA_TYPE", MappingProxyType(known))


@pytest.fixture
def render(reader: Bench, children: NewChildren, tmp_path: Path) -> Iterator[Render]:
    path = tmp_path / "document"

    def rendered(
        content: bytes,
        page: int = 1,
        *,
        box: tuple[int, int, int, int] | None = None,
        media_type: str = media_types.PDF,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> Image.Image:
        path.write_bytes(content)
        png = rendering.render(
            Opening(path=str(path), media_type=media_type, limits=READING_LIMITS),
            page=page,
            box=box,
            reader=reader.reader,
            tenant_id=TenantId(uuid4()),
            while_waiting=while_waiting,
        )
        return Image.open(io.BytesIO(png), formats=["PNG"])

    yield rendered
    reader.reader.close()
    assert children() == []


def refusal(render: Callable[[], Image.Image]) -> tuple[str, str]:
    with pytest.raises(PageNotRendered) as raised:
        render()
    assert not raised.value.retryable
    return raised.value.code, str(raised.value)


def test_a_part_of_a_page_is_cut_out(render: Render) -> None:
    # A red square; the page is 792 points high.
    content = pdfs.with_page_contents(b"1 0 0 rg 100 300 100 100 re f")

    image = render(content, box=(100, 392, 200, 492))

    assert image.size == (209, 209)
    colors = image.getcolors()
    assert colors is not None
    count, color = max(colors)
    assert (color, count > 200 * 200) == ((255, 0, 0), True)


@pytest.mark.parametrize("box", [(-50, -50, 5_000, 5_000), (900, 900, 950, 950), (5, 5, 5, 5)])
def test_a_part_beyond_the_page_is_rendered_as_far_as_it_is_on_it(
    render: Render, box: tuple[int, int, int, int]
) -> None:
    assert max(render(pdfs.with_pages("One."), box=box).size) <= FIGURE_SIDE


def test_a_page_beyond_the_first_is_rendered(render: Render) -> None:
    content = pdfs.with_pages("One.", "Two.")
    first, second = render(content, 1), render(content, 2)
    assert max(second.size) == THUMBNAIL_SIDE
    assert first.tobytes() != second.tobytes()
    assert second.convert("L").getextrema() != (255, 255)


def test_a_page_of_an_image_is_rendered(render: Render) -> None:
    written = io.BytesIO()
    pages = [Image.new("L", (900, 600), shade) for shade in (50, 200)]
    pages[0].save(written, "TIFF", save_all=True, append_images=pages[1:])
    image = render(written.getvalue(), 2, media_type="image/tiff")
    assert (max(image.size), image.convert("L").getextrema()) == (THUMBNAIL_SIDE, (200, 200))


def test_a_page_of_a_text_has_no_image(render: Render) -> None:
    assert refusal(lambda: render(b"words", media_type="text/plain")) == (
        "not_found",
        "Page 1 cannot be rendered. Pages of this format have no image.",
    )


def test_a_damaged_page_has_no_image_and_the_next_page_has_one(render: Render) -> None:
    content = pdfs.with_a_missing_page("One.", "Three.")
    assert refusal(lambda: render(content, 2)) == (
        "document_corrupt",
        "Page 2 cannot be rendered. The page is damaged.",
    )
    assert max(render(content, 3).size) == THUMBNAIL_SIDE


def test_an_encrypted_document_has_no_images_without_its_password(render: Render) -> None:
    code, detail = refusal(lambda: render(pdfs.locked("Secret.", opened_with="pw")))
    assert code == "document_encrypted"
    assert "its password was deleted" in detail


def test_a_file_that_does_not_open_has_no_images(render: Render) -> None:
    code, detail = refusal(lambda: render(pdfs.not_a_pdf()))
    assert (code, detail.startswith("Page 1 cannot be rendered. ")) == ("document_corrupt", True)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("fail", "document_corrupt"),
        ("crash", "document_crashed"),
        ("exhaust", "document_out_of_memory"),
        ("spin", "document_timeout"),
        ("compute", "document_timeout"),
        ("open: crash", "document_crashed"),
    ],
)
def test_a_page_that_ends_its_reader_has_no_image(
    command: str, code: str, render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "PART_TIMEOUT", timedelta(seconds=0.3))
    assert refusal(lambda: render(command.encode(), media_type=MEDIA_TYPE))[0] == code
    assert render(b"good", media_type=MEDIA_TYPE).size == (10, 20)


def kill(children: NewChildren) -> None:
    for child in children():
        os.kill(child.pid, signal.SIGKILL)


def test_a_page_whose_child_someone_killed_is_rendered_by_the_next_child(
    render: Render, children: NewChildren, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "PART_TIMEOUT", timedelta(seconds=30))

    def kill_once() -> None:
        (tmp_path / "document").write_bytes(b"good")
        kill(children)

    assert render(b"spin", media_type=MEDIA_TYPE, while_waiting=kill_once).size == (10, 20)


def test_a_page_whose_child_is_killed_again_has_no_image(
    render: Render, children: NewChildren, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "PART_TIMEOUT", timedelta(seconds=30))

    def rendered() -> Image.Image:
        return render(b"spin", media_type=MEDIA_TYPE, while_waiting=lambda: kill(children))

    assert refusal(rendered)[0] == "document_crashed"
