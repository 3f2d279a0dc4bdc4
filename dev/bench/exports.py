"""An export of many documents beside `COPY … TO STDOUT` of the same rows, piped to a file."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final, LiteralString

import psycopg
from sqlalchemy.engine import make_url

from dev.bench import machine, plots
from dev.bench.figures import Ratio, starting_orders
from dev.bench.plots import Bars
from dev.bench.sections import Section, Table
from dev.bench.system import System
from dev.bench.usage import MIB, watched
from dev.client import Client
from dev.stack import postgres
from pipeline.export.statement import PLANNING
from schemas.lifecycle import ExportFormat, ExportKind
from schemas.tables.export_kinds import KINDS

TENANT: Final = "bench-exports"
TIMEOUT: Final = timedelta(minutes=15)
COPY: Final = "COPY to a file"
"""The peer: the same rows and columns, as they are, by psql."""
COPY_AS_PLANNED: Final = "COPY, planner's choice"
"""The same without the settings of an export, which keep it from reading tables as a whole."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    rows: int
    rounds: int


FULL: Final = Extent(rows=1_000_000, rounds=3)
QUICK: Final = Extent(rows=50_000, rounds=1)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One export, or one COPY; memory is that of the largest process of the worker."""

    seconds: float
    size_bytes: int
    peak_mib: float = 0
    grown_mib: float = 0


# Without triggers and checks of foreign keys, which a bulk load does not need.
_FILL: Final[tuple[LiteralString, ...]] = (
    "SET session_replication_role = replica",
    """
    CREATE TEMPORARY TABLE filled AS
    SELECT n, gen_random_uuid() AS document_id, gen_random_uuid() AS upload_id, uuidv7() AS revision_id,
           gen_random_uuid() AS job_id, now() - interval '1 day' + interval '1 millisecond' * n AS at
    FROM generate_series(1, %(rows)s) AS n
    """,
    """
    INSERT INTO uploads (id, tenant_id, status, filename, size, chunk_size, chunk_count, staging, metadata, created_at, expires_at)
    SELECT upload_id, %(tenant_id)s, 'stored', 'Invoice ' || n || '.pdf', 81234, 81234, 1, 'directory',
           jsonb_build_object('customer', 'C-' || n), at, at
    FROM filled ORDER BY n
    """,
    """
    INSERT INTO revisions (id, document_id, tenant_id, job_id, number, pipeline_version, state, outcome, page_count, pages_read, language,
                           title, metadata, outline, attachments, page_labels, passages, entities, created_at, published_at)
    SELECT revision_id, document_id, %(tenant_id)s, job_id, 1, 'bench', 'published', 'complete', 3, 3, 'en',
           'Invoice no. ' || n || ' of the port of loading', '{"author": "Harbour office"}', '[]', '[]', '[]', 40, 12, at, at
    FROM filled ORDER BY n
    """,
    """
    INSERT INTO documents (id, tenant_id, upload_id, job_id, status, outcome, revision_id, filename, content_type, size, sha256, object_key, etag,
                           language, created_at, ingested_at)
    SELECT document_id, %(tenant_id)s, upload_id, job_id, 'ingested', 'complete', revision_id, 'Invoice ' || n || '.pdf', 'application/pdf', 81234,
           encode(sha256(n::text::bytea), 'hex'), 'originals/' || upload_id, 'etag', 'en', at, at
    FROM filled ORDER BY n
    """,
    "DROP TABLE filled",
    "RESET session_replication_role",
    "VACUUM (ANALYZE) uploads, revisions, documents",
)
_EMPTY: Final[tuple[LiteralString, ...]] = (
    "SET session_replication_role = replica",
    "DELETE FROM documents WHERE tenant_id = %(tenant_id)s",
    "DELETE FROM revisions WHERE tenant_id = %(tenant_id)s",
    "DELETE FROM uploads WHERE tenant_id = %(tenant_id)s",
    "RESET session_replication_role",
)


def run(system: System, *, extent: Extent) -> Section:
    runs = _measure(system, extent=extent)
    plots.bars(
        Bars(
            title=f"{extent.rows:,} documents into a file (higher is better)",
            unit="rows/s",
            groups=list(runs),
            series={"": [[extent.rows / each.seconds for each in its] for its in runs.values()]},
            ours=tuple(ExportFormat),
        ),
        to=system.plots / "exports.svg",
    )
    return Section(
        title="Exports",
        question=(
            f"{extent.rows:,} documents of a tenant with all columns, from the moment a worker takes"
            " up the export until its file is in the bucket and on record; beside it the same rows by"
            f" psql: `COPY … TO STDOUT` piped to a file, with the same plan and with that of the planner. Median of {extent.rounds} rounds. Memory is"
            " that of the worker's largest process; idle is its size before the first export."
        ),
        tables=[_table(runs, extent=extent)],
        remarks=[
            (
                "The export checks each text for formulas, ends rows with CR LF, counts them, and"
                " sends the file with digests. COPY does none of it."
            ),
            (
                "An export reads its tenant's rows one by one, by indexes, in their order. The"
                " database has one tenant here: the planner then prefers to read whole tables, in"
                " parallel and in any order, which costs more the more tenants there are."
            ),
        ],
        plots=["exports.svg"],
        peers={"psql": machine.printed_version(_psql(), "--version") or "unknown"},
        measured_on=datetime.now(UTC).date(),
    )


def _measure(system: System, *, extent: Extent) -> dict[str, list[Run]]:
    system.run_only("gateway", "relay", "exports")
    api_key = system.other_api_key(TENANT)
    with system.database() as connection:
        tenant_id = _tenant_id(connection)
        _execute(connection, _FILL, {"rows": extent.rows, "tenant_id": tenant_id})
    names = (*ExportFormat, COPY, COPY_AS_PLANNED)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    try:
        with Client(system.url, api_key=api_key) as client:
            for order in starting_orders(names, rounds=extent.rounds):
                for name in order:
                    # The unwritten pages of the run before must not slow this one.
                    os.sync()
                    done = (
                        _export(system, client, name, rows=extent.rows)
                        if name in set(ExportFormat)
                        else _copy(system, tenant_id, settings=PLANNING if name == COPY else ())
                    )
                    runs[name].append(done)
                    system.report(f"exports: {name}: {extent.rows / done.seconds:,.0f} rows/s")
    finally:
        with system.database() as connection:
            _execute(connection, _EMPTY, {"tenant_id": tenant_id})
        system.empty_bucket()
    return runs


def _export(system: System, client: Client, format_: str, *, rows: int) -> Run:
    with watched({"exports": system.pid_of("exports")}) as usage:
        answer = client.http.post("/exports", json={"kind": "documents", "format": format_})
        answer.raise_for_status()
        job = client.wait_until_settled(answer.json()["job_id"], timeout=TIMEOUT)
    result: dict[str, Any] | None = job["result"]
    if result is None or result["rows"] != rows:
        raise RuntimeError(f"the export has not every row: {job}")
    began, ended = (datetime.fromisoformat(job[moment]) for moment in ("started_at", "finished_at"))
    return Run(
        seconds=(ended - began).total_seconds(),
        size_bytes=result["bytes"],
        peak_mib=usage.largest_mib["exports"],
        grown_mib=usage.grown_mib["exports"],
    )


def _copy(system: System, tenant_id: str, *, settings: Sequence[str]) -> Run:
    kind = KINDS[ExportKind.DOCUMENTS]
    query = kind.select(
        [f'{column.sql} AS "{column.name}"' for column in kind.columns],
        joins=kind.joins,
        filters=(),
    ).replace("%(tenant_id)s", f"'{tenant_id}'")
    url = make_url(system.stack.environment["DATABASE_URL"]).set(drivername="postgresql")
    file = system.scratch / "copied.csv"
    began = time.monotonic()
    with file.open("wb") as out:
        subprocess.run(
            [
                _psql(),
                "--no-psqlrc",
                url.render_as_string(hide_password=False),
                "--quiet",
                "--command=BEGIN",
                *(f"--command={setting}" for setting in settings),
                f"--command=COPY ({query}) TO STDOUT WITH (FORMAT csv, HEADER)",
            ],
            stdout=out,
            check=True,
        )
    seconds = time.monotonic() - began
    size_bytes = file.stat().st_size
    file.unlink()
    return Run(seconds=seconds, size_bytes=size_bytes)


def _table(runs: dict[str, list[Run]], *, extent: Extent) -> Table:
    copied = [each.seconds for each in runs[COPY]]
    rows = []
    for name, its in runs.items():
        seconds = [each.seconds for each in its]
        is_ours = name in set(ExportFormat)
        rows.append(
            [
                f"export, {name}" if is_ours else name,
                f"{extent.rows / median(seconds):,.0f}",
                str(Ratio.between(copied, seconds)) if name != COPY else "",
                f"{its[0].size_bytes / MIB:.0f} MiB",
                f"{max(each.peak_mib for each in its):.0f} MiB" if is_ours else "",
                f"{max(each.grown_mib for each in its):.0f} MiB" if is_ours else "",
            ]
        )
    return Table(
        headings=["", "rows/s", "times COPY (range)", "file", "peak RSS", "over idle"], rows=rows
    )


def _psql() -> str:
    return str(postgres.programs() / "psql")


def _tenant_id(connection: psycopg.Connection) -> str:
    found = connection.execute("SELECT id::text FROM tenants WHERE name = %s", (TENANT,)).fetchone()
    if found is None:
        raise RuntimeError(f"there is no tenant {TENANT}")
    return str(found[0])


def _execute(
    connection: psycopg.Connection,
    statements: tuple[LiteralString, ...],
    values: dict[str, Any],
) -> None:
    cursor = psycopg.ClientCursor(connection)
    for statement in statements:
        cursor.execute(statement, values)
