"""The project's own small library: invented documents in English and German, with questions."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec
from reportlab.lib import colors
from reportlab.lib.pagesizes import A5
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import (
    Flowable,
    PageBreak,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from dev.retrieval.questions import Question

_GRID: Final = TableStyle([("GRID", (0, 0), (-1, -1), 0.5, colors.black)])


class PageTable(msgspec.Struct, frozen=True, kw_only=True):
    """A ruled table below the text of a page."""

    page: int
    rows: list[list[str]]


class LibraryDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document; each string of `pages` is the text of a page, with blank lines between paragraphs."""

    file: str
    language: str
    title: str
    pages: list[str]
    table: PageTable | None = None


class Library(msgspec.Struct, frozen=True, kw_only=True):
    documents: list[LibraryDocument]
    questions: list[Question]


def library() -> Library:
    text = files("dev.retrieval").joinpath("library.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), Library)


def write_pdfs(documents: list[LibraryDocument], *, to: Path) -> list[Path]:
    """Write a PDF of each document; return the paths in the same order."""
    to.mkdir(parents=True, exist_ok=True)
    return [_write_pdf(document, to / document.file) for document in documents]


def _write_pdf(document: LibraryDocument, path: Path) -> Path:
    styles = getSampleStyleSheet()
    story: list[Flowable] = []
    for number, text in enumerate(document.pages, start=1):
        for paragraph in text.split("\n\n"):
            story += [Paragraph(paragraph, styles["BodyText"]), Spacer(1, 8)]
        if document.table is not None and document.table.page == number:
            story.append(Table(document.table.rows, style=_GRID))
        story.append(PageBreak())
    SimpleDocTemplate(str(path), pagesize=A5, title=document.title, lang=document.language).build(
        story
    )
    return path
