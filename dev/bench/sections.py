"""The result of a benchmark: a section with tables, for the terminal and for Markdown."""

from collections.abc import Sequence
from datetime import date

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table as TerminalTable


class Table(msgspec.Struct, frozen=True):
    headings: list[str]
    rows: list[list[str]]
    title: str = ""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark's result."""

    title: str
    question: str
    """What is measured and how; one paragraph."""
    tables: list[Table]
    remarks: list[str] = []
    """Facts needed to judge the figures."""
    plots: list[str] = []
    """File names, next to the page."""
    peers: dict[str, str] = {}
    """Version of every peer."""
    measured_on: date


def for_terminal(section: Section) -> RenderableType:
    parts: list[RenderableType] = [f"\n[bold]{escape(section.title)}[/bold]"]
    for table in section.tables:
        shown = TerminalTable(title=escape(table.title) or None, title_justify="left")
        for number, heading in enumerate(table.headings):
            shown.add_column(escape(heading), justify="right" if number else "left")
        for row in table.rows:
            shown.add_row(*map(escape, row))
        parts.append(shown)
    parts += [f"- {escape(remark)}" for remark in section.remarks]
    return Group(*parts)


def as_markdown(section: Section) -> str:
    parts = [f"## {section.title}", section.question]
    parts += [f"![{section.title}]({plot})" for plot in section.plots]
    for table in section.tables:
        if table.title:
            parts.append(f"**{table.title}**")
        parts.append(_markdown_of(table))
    if section.remarks:
        parts.append("\n".join(f"- {remark}" for remark in section.remarks))
    peers = ", ".join(f"{name} {version}" for name, version in sorted(section.peers.items()))
    against = f" Peers: {peers}." if peers else ""
    parts.append(f"*Measured on {section.measured_on.isoformat()}.{against}*")
    return "\n\n".join(parts) + "\n"


def _markdown_of(table: Table) -> str:
    alignment = ["---", *["---:"] * (len(table.headings) - 1)]
    return "\n".join(map(_markdown_row, [table.headings, alignment, *table.rows]))


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
