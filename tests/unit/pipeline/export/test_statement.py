import re
from uuid import uuid4

import pytest

from pipeline.export import statement
from pipeline.export.statement import Query
from schemas.api.exports import ExportFilter
from schemas.ids import DocumentId, ExportId, TenantId
from schemas.lifecycle import ExportFormat, ExportKind
from schemas.tables.export_kinds import KINDS


def a_query(
    kind: ExportKind = ExportKind.DOCUMENTS,
    format_: ExportFormat = ExportFormat.CSV,
    chosen: ExportFilter | None = None,
    *,
    columns: tuple[str, ...] = (),
    raw: bool = False,
) -> Query:
    return Query(
        export_id=ExportId(uuid4()),
        tenant_id=TenantId(uuid4()),
        kind=kind,
        format=format_,
        filter=chosen or ExportFilter(),
        columns=columns or [column.name for column in KINDS[kind].columns],
        raw=raw,
    )


@pytest.mark.parametrize("kind", ExportKind)
@pytest.mark.parametrize("format_", ExportFormat)
def test_every_query_names_its_tenant_and_its_order(
    kind: ExportKind, format_: ExportFormat
) -> None:
    copy = statement.copy_of(a_query(kind, format_))

    assert copy.startswith("COPY (SELECT ")
    assert copy.count("tenant_id = %(tenant_id)s") == 1
    assert "ORDER BY" in copy
    assert set(re.findall(r"%\((\w+)\)s", copy)) == {"tenant_id"}


@pytest.mark.parametrize("kind", ExportKind)
def test_names_of_columns_and_filters_are_unique_and_described(kind: ExportKind) -> None:
    columns = KINDS[kind].columns

    assert len({column.name for column in columns}) == len(columns)
    assert all(column.description for column in columns)
    assert KINDS[kind].filters.keys() <= set(ExportFilter.__struct_fields__)


def test_every_filter_belongs_to_a_kind() -> None:
    known = {name for kind in KINDS.values() for name in kind.filters}

    assert known == set(ExportFilter.__struct_fields__)


def test_only_the_chosen_columns_are_read() -> None:
    copy = statement.copy_of(a_query(columns=("size", "filename"), raw=True))

    assert copy.startswith(
        'COPY (SELECT documents.size AS "size", documents.filename AS "filename"'
    )
    assert "JOIN" not in copy


def test_filters_are_values_and_never_a_part_of_the_statement() -> None:
    chosen = ExportFilter(
        language="'; DROP TABLE documents --",
        document_id=DocumentId(uuid4()),
        content_type="TEXT/Plain; x",
        metadata={"%s": "'"},
    )
    query = a_query(chosen=chosen)

    values = statement.values_of(query)

    assert "DROP" not in statement.copy_of(query)
    assert values.keys() == {"tenant_id", "language", "document_id", "content_type", "metadata"}
    assert values["content_type"] == "text/plain"
    assert "LEFT JOIN uploads" in statement.copy_of(query)


def test_text_is_guarded_in_csv_alone() -> None:
    guarded = statement.copy_of(a_query(columns=("title",)))
    json = statement.copy_of(a_query(format_=ExportFormat.JSONL, columns=("title",)))

    assert "~ '^(" in guarded
    assert "~" not in statement.copy_of(a_query(columns=("title",), raw=True))
    assert "~" not in json
    assert "json_build_object('title', revisions.title)" in json
