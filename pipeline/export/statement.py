"""The COPY statement of an export: its columns as CSV (RFC 4180) or as JSON, written by the database.

The file needs no further work: a message of COPY is one row. In CSV, text that a spreadsheet would
calculate gets an apostrophe in front (https://owasp.org/www-community/attacks/CSV_Injection).
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from psycopg.types.json import Jsonb

from schemas.api.exports import ExportFilter
from schemas.ids import ExportId, TenantId
from schemas.lifecycle import ExportFormat, ExportKind
from schemas.policy import media_types
from schemas.policy.spreadsheets import FORMULA
from schemas.tables.export_kinds import KINDS, Column, ColumnType

_HARMLESS: Final = ", ".join(str(ord(each)) for each in string.ascii_letters + string.digits)
"""Code points that begin most text, and no formula."""

# The first condition decides for most text: it costs a tenth of the regular expression, whose
# character classes are those of the database.
_GUARDED: Final = f"""CASE WHEN ascii({{sql}}) IN ({_HARMLESS}) THEN {{sql}}
    WHEN {{sql}} ~ '{FORMULA}' THEN '''' || {{sql}} ELSE {{sql}} END"""

_OPTIONS: Final[Mapping[ExportFormat, str]] = {
    ExportFormat.CSV: "FORMAT csv, HEADER true, ENCODING 'UTF8'",
    # JSON has no control characters: with these, nothing is quoted or escaped.
    ExportFormat.JSONL: r"FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02', ENCODING 'UTF8'",
}

PLANNING: Final = (
    # Only plans that begin to return rows at once, and that read rows of the tenant alone: the
    # others hash, scan or sort the tables of all tenants.
    "SET LOCAL enable_seqscan = off",
    "SET LOCAL enable_hashjoin = off",
    "SET LOCAL enable_mergejoin = off",
    "SET LOCAL enable_sort = off",
    # The time to compile is paid before the first row.
    "SET LOCAL jit = off",
    # One export occupies one processor of the database.
    "SET LOCAL max_parallel_workers_per_gather = 0",
    "SET LOCAL timezone = 'UTC'",
)
"""Settings of the transaction that exports."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """What an export has, as its row says.

    Attributes:
        columns: names, in the order of the file.
        raw: whether text that a spreadsheet would calculate stays as it is.
    """

    export_id: ExportId
    tenant_id: TenantId
    kind: ExportKind
    format: ExportFormat
    filter: ExportFilter
    columns: Sequence[str]
    bom: bool = False
    raw: bool = False


def select_of(query: Query) -> str:
    """Return the SELECT of an export, with the driver's placeholders."""
    kind = KINDS[query.kind]
    by_name = {column.name: column for column in kind.columns}
    columns = [by_name[name] for name in query.columns]
    if query.format is ExportFormat.CSV:
        expressions = [
            f'{_cell(column, is_raw=query.raw)} AS "{column.name}"' for column in columns
        ]
    else:
        pairs = ", ".join(f"'{column.name}', {column.sql}" for column in columns)
        expressions = [f"json_build_object({pairs})"]
    return kind.select(
        expressions,
        joins=[column.join for column in columns if column.join is not None],
        filters=filters_of(query.filter),
    )


def copy_of(query: Query) -> str:
    """Return the COPY statement of an export, with the driver's placeholders."""
    return f"COPY ({select_of(query)}) TO STDOUT WITH ({_OPTIONS[query.format]})"


def values_of(query: Query) -> dict[str, Any]:
    """Return the values of the placeholders."""
    values: dict[str, Any] = {
        name: getattr(query.filter, name) for name in filters_of(query.filter)
    }
    if "content_type" in values:
        values["content_type"] = media_types.essence_of(values["content_type"])
    if "language" in values:
        values["language"] = values["language"].lower()
    if "metadata" in values:
        values["metadata"] = Jsonb(values["metadata"])
    return {"tenant_id": query.tenant_id, **values}


def filters_of(chosen: ExportFilter) -> list[str]:
    """Return the names of the filters that are set."""
    return list(msgspec.to_builtins(chosen))


def _time(sql: str) -> str:
    """Return a time as RFC 3339 has it; half the cost of `to_char`. The time zone is UTC."""
    return f"replace({sql}::timestamp::text, ' ', 'T') || 'Z'"


def _cell(column: Column, *, is_raw: bool) -> str:
    if column.type is ColumnType.JSON:
        return f"{column.sql}::text"
    if column.type is ColumnType.TIME:
        return _time(column.sql)
    if column.type is ColumnType.TEXT and not is_raw:
        return _GUARDED.replace("{sql}", column.sql)
    return column.sql
