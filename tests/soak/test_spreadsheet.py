"""LibreOffice opens the CSV of an export: every row, every name, and no formula."""

import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from schemas.settings import DatabaseSettings
from tests.factories.exports import FORMULAS, NASTY, add_document, add_documents, request_export
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.export_worker import ExportWorker, export_worker

SOFFICE: Final = shutil.which("soffice")

pytestmark = [
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(
        SOFFICE is None, reason="needs LibreOffice: apt-get install libreoffice-calc"
    ),
]

COLUMNS: Final = ["filename", "size", "content_type", "created_at"]
NAMES_MAX: Final = 1_000
SENTINEL_ROWS: Final = len(FORMULAS) + 1

IMPORT: Final = "CSV:44,34,76,1,,0,false,true,false,false,false,0,true"
"""Commas, quotes, UTF-8, and text that looks like a formula is calculated."""

TABLE: Final = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
TEXT: Final = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"


@dataclass(kw_only=True)
class Sheet:
    """What LibreOffice has made of a file.

    Attributes:
        rows: with at least one cell that is not empty, the header included.
        formulas: the cells that are calculated.
        names: the first cells of the first rows, without white space.
    """

    rows: int = 0
    formulas: int = 0
    names: list[str]


@pytest.fixture
def worker(database: DatabaseSettings, tmp_path: Path) -> Iterator[ExportWorker]:
    with export_worker(database, work_dir=tmp_path) as worker:
        yield worker


@pytest.mark.parametrize("documents", [10, 1_000_000])
def test_a_spreadsheet_has_every_row_and_no_formula(
    worker: ExportWorker, tmp_path: Path, documents: int
) -> None:
    sheet = opened(exported(worker, documents=documents, raw=False), directory=tmp_path)

    # The documents with these names are the oldest, so their rows are the first.
    assert (sheet.rows, sheet.formulas) == (1 + documents + SENTINEL_ROWS, 0)
    assert compact(NASTY) in sheet.names
    for formula in FORMULAS:
        assert any(name.endswith(compact(formula)) for name in sheet.names), formula


def test_the_same_file_without_the_guard_has_formulas(worker: ExportWorker, tmp_path: Path) -> None:
    sheet = opened(exported(worker, documents=10, raw=True), directory=tmp_path)

    assert sheet.formulas > 0


def exported(worker: ExportWorker, *, documents: int, raw: bool) -> bytes:
    with worker.session() as session:
        tenant_id = add_tenant(session)
        add_documents(session, tenant_id, count=documents)
        for minute, name in enumerate([*FORMULAS, NASTY]):
            add_document(session, tenant_id, filename=name, minute=minute)
        event = request_export(session, tenant_id, columns=COLUMNS, raw=raw)
    assert worker.deliver(event)
    return worker.content(event)


def opened(content: bytes, *, directory: Path) -> Sheet:
    """Convert a CSV file as LibreOffice opens it, and read the result."""
    assert SOFFICE is not None
    (directory / "export.csv").write_bytes(content)
    done = subprocess.run(
        [
            SOFFICE,
            f"-env:UserInstallation={(directory / 'profile').as_uri()}",
            *("--headless", "--norestore", f"--infilter={IMPORT}"),
            *("--convert-to", "ods", "--outdir", str(directory), str(directory / "export.csv")),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    sheet_file = directory / "export.ods"
    assert sheet_file.exists(), done.stdout + done.stderr
    sheet = Sheet(names=[])
    with zipfile.ZipFile(sheet_file) as archive, archive.open("content.xml") as xml:
        for _, element in ET.iterparse(xml):  # noqa: S314  # LibreOffice has written it
            if element.tag == f"{TABLE}table-row":
                _add(element, to=sheet)
                # Otherwise the tree of a million rows would stay in memory.
                element.clear()
    return sheet


def _add(row: ET.Element, *, to: Sheet) -> None:
    cells = row.findall(f"{TABLE}table-cell")
    if not any(cell.find(f"{TEXT}p") is not None for cell in cells):
        return
    to.rows += int(row.get(f"{TABLE}number-rows-repeated", "1"))
    to.formulas += sum(cell.get(f"{TABLE}formula") is not None for cell in cells)
    if len(to.names) < NAMES_MAX:
        to.names.append(compact("".join(cells[0].itertext())))


def compact(name: str) -> str:
    """Return a text without white space, which a spreadsheet keeps as elements of its own."""
    return "".join(name.split())
