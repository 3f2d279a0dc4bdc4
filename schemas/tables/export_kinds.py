"""What can be exported: the columns and filters of each kind, and their SQL.

A query reads only rows of its tenant, in the order of an index, from the first row on. The
placeholders are those of the driver: `%(tenant_id)s`, and the name of each filter that is set.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Final

from schemas.lifecycle import DeliveryStatus, DocumentStatus, ExportKind, JobStatus


class ColumnType(Enum):
    """How the values of a column are written."""

    TEXT = "text of clients and documents, which a spreadsheet must not calculate"
    CODE = "ids, codes, digests and numbers"
    TIME = "a time, in UTC"
    JSON = "a JSON value; in CSV its text"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a kind.

    Attributes:
        name: in the header of the file.
        sql: an expression; cheap, because it is evaluated several times.
        join: the name of the join that the expression needs.
    """

    name: str
    sql: str
    type: ColumnType = ColumnType.CODE
    description: str
    join: str | None = None


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A filter of a kind; `sql` is a condition, and `slot` the place of it in the query."""

    sql: str
    slot: str = "conditions"
    join: str | None = None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of export.

    Attributes:
        query: from `FROM` to `ORDER BY`, with the slots of joins and conditions.
        slots: the slots of conditions.
        joins: by name; those that neither a column nor a filter needs are left out.
        columns: in the order of the file, unless the request chooses.
        filters: by the names that the list of the API uses.
        statuses: the values of the filter `status`.
    """

    query: str
    slots: Sequence[str] = ("conditions",)
    joins: Mapping[str, str]
    columns: Sequence[Column]
    filters: Mapping[str, Filter]
    statuses: type[StrEnum] | None

    def select(
        self, expressions: Iterable[str], *, joins: Iterable[str], filters: Iterable[str]
    ) -> str:
        """Return the query of these expressions, with the filters of these names."""
        needed = dict.fromkeys(
            (*joins, *(join for name in filters if (join := self.filters[name].join) is not None))
        )
        conditions = {
            slot: "".join(
                f" AND {self.filters[name].sql}"
                for name in filters
                if self.filters[name].slot == slot
            )
            for slot in self.slots
        }
        rows = self.query.format(joins=" ".join(self.joins[each] for each in needed), **conditions)
        return f"SELECT {', '.join(expressions)} {rows}"


NAME_END: Final = r"U&'\+10FFFF'"
"""Follows every character of a name in the order of the index."""

_UPLOADS_OF_DOCUMENTS: Final = "LEFT JOIN uploads ON uploads.id = documents.upload_id"

_DOCUMENT_FILTERS: Final[Mapping[str, Filter]] = {
    "document_id": Filter(sql="documents.id = %(document_id)s"),
    "status": Filter(sql="documents.status = %(status)s"),
    "outcome": Filter(sql="documents.outcome = %(outcome)s"),
    "language": Filter(sql="documents.language = %(language)s"),
    # As in the index.
    "content_type": Filter(
        sql="lower(btrim(split_part(documents.content_type, ';', 1))) = %(content_type)s"
    ),
    "sha256": Filter(sql="documents.sha256 = %(sha256)s"),
    "filename_prefix": Filter(
        sql="documents.filename >= %(filename_prefix)s"
        f" AND documents.filename <= %(filename_prefix)s || {NAME_END}"
    ),
    "created_after": Filter(sql="documents.created_at > %(created_after)s"),
    "created_before": Filter(sql="documents.created_at < %(created_before)s"),
    "metadata": Filter(sql="uploads.metadata @> %(metadata)s", join="uploads"),
}

_DOCUMENT_ID: Final = Column(name="document_id", sql="documents.id", description="the document")
_FILENAME: Final = Column(
    name="filename",
    sql="documents.filename",
    type=ColumnType.TEXT,
    description="name of the document's file",
)

_DOCUMENTS: Final = Kind(
    query="FROM documents {joins} WHERE documents.tenant_id = %(tenant_id)s{conditions}"
    " ORDER BY documents.created_at, documents.id",
    joins={
        "revisions": "LEFT JOIN revisions ON revisions.id = documents.revision_id",
        "uploads": _UPLOADS_OF_DOCUMENTS,
    },
    columns=(
        _DOCUMENT_ID,
        Column(name="upload_id", sql="documents.upload_id", description="its upload"),
        Column(name="job_id", sql="documents.job_id", description="the job that stored the file"),
        Column(name="status", sql="documents.status", description="such as `ingested`"),
        Column(name="outcome", sql="documents.outcome", description="what the reading came to"),
        _FILENAME,
        Column(
            name="content_type",
            sql="documents.content_type",
            type=ColumnType.TEXT,
            description="media type of the file",
        ),
        Column(name="size", sql="documents.size", description="bytes of the file"),
        Column(name="sha256", sql="documents.sha256", description="of the file, hex"),
        Column(
            name="page_count",
            sql="revisions.page_count",
            description="pages of the file",
            join="revisions",
        ),
        Column(
            name="pages_read",
            sql="revisions.pages_read",
            description="pages read without OCR",
            join="revisions",
        ),
        Column(
            name="pages_ocr",
            sql="revisions.pages_ocr",
            description="pages read by OCR",
            join="revisions",
        ),
        Column(
            name="pages_failed",
            sql="revisions.pages_failed",
            description="pages that could not be read",
            join="revisions",
        ),
        Column(
            name="pages_needs_ocr",
            sql="revisions.pages_needs_ocr",
            description="pictures of text that OCR has not read",
            join="revisions",
        ),
        Column(name="language", sql="documents.language", description="ISO 639-1"),
        Column(
            name="title",
            sql="revisions.title",
            type=ColumnType.TEXT,
            description="what the document calls itself",
            join="revisions",
        ),
        Column(
            name="sentences",
            sql="revisions.passages",
            description="number of sentences",
            join="revisions",
        ),
        Column(
            name="entities",
            sql="revisions.entities",
            description="number of entities",
            join="revisions",
        ),
        Column(name="error_code", sql="documents.error_code", description="why it is not read"),
        Column(
            name="error_detail",
            sql="documents.error_detail",
            type=ColumnType.TEXT,
            description="the same as a sentence",
        ),
        Column(
            name="metadata",
            sql="revisions.metadata",
            type=ColumnType.JSON,
            description="what the document says about itself",
            join="revisions",
        ),
        Column(
            name="upload_metadata",
            sql="uploads.metadata",
            type=ColumnType.JSON,
            description="what the client said about the upload",
            join="uploads",
        ),
        Column(
            name="created_at",
            sql="documents.created_at",
            type=ColumnType.TIME,
            description="when the file was stored",
        ),
        Column(
            name="ingested_at",
            sql="documents.ingested_at",
            type=ColumnType.TIME,
            description="when it was read",
        ),
    ),
    filters=_DOCUMENT_FILTERS,
    statuses=DocumentStatus,
)

# In the three queries below, nested loops keep the order of the inner rows, and OFFSET 0 keeps the
# planner from another order. A sort would not fit in memory: a document has any number of sentences.
#
# A sentence is cut off the rest of its group. `substr` would count the characters from the begin of
# the page for each sentence, which takes ten times as long for a long page. Groups bound the copies of
# the rest: a page may have a million characters.
_SENTENCES: Final = Kind(
    query="""FROM documents
        CROSS JOIN LATERAL (
            SELECT number, language, text || '' AS text, sentences || '{{}}'::integer[] AS places
            FROM pages WHERE pages.revision_id = documents.revision_id ORDER BY number OFFSET 0
        ) AS pages
        CROSS JOIN LATERAL (
            SELECT 128 * number AS first,
                   least(128 * number + 128, cardinality(places)) AS last,
                   substr(pages.text, places[128 * number + 1] + 1,
                          places[least(128 * number + 128, cardinality(places))]
                          - places[128 * number + 1]) AS text
            FROM generate_series(0, (cardinality(places) - 1) / 128) AS number
            WHERE cardinality(places) > 0 OFFSET 0
        ) AS groups
        CROSS JOIN LATERAL (
            WITH RECURSIVE cut AS (
                SELECT first / 2 + 1 AS ordinal, places[first + 1] AS start,
                       places[first + 2] AS "end", groups.text AS rest
                UNION ALL
                SELECT ordinal + 1, places[2 * ordinal + 1], places[2 * ordinal + 2],
                       right(rest, start - places[2 * ordinal + 1])
                FROM cut WHERE 2 * ordinal < last
            )
            SELECT ordinal, start, "end", left(rest, "end" - start) AS text FROM cut OFFSET 0
        ) AS sentences
        {joins} WHERE documents.tenant_id = %(tenant_id)s{conditions}
        ORDER BY documents.created_at, documents.id""",
    joins={"uploads": _UPLOADS_OF_DOCUMENTS},
    columns=(
        _DOCUMENT_ID,
        _FILENAME,
        Column(name="page", sql="pages.number", description="from 1"),
        Column(name="ordinal", sql="sentences.ordinal", description="in the page, from 1"),
        Column(
            name="start", sql="sentences.start", description="offset in the page's text, characters"
        ),
        Column(name="end", sql='sentences."end"', description="the offset after the sentence"),
        Column(name="language", sql="pages.language", description="of the page, ISO 639-1"),
        Column(
            name="text",
            sql="sentences.text",
            type=ColumnType.TEXT,
            description="the sentence",
        ),
    ),
    filters=_DOCUMENT_FILTERS,
    statuses=DocumentStatus,
)

_ENTITIES: Final = Kind(
    query="""FROM documents
        CROSS JOIN LATERAL (
            SELECT * FROM entities WHERE entities.revision_id = documents.revision_id
            ORDER BY page, ordinal OFFSET 0
        ) AS entities
        {joins} WHERE documents.tenant_id = %(tenant_id)s{conditions}
        ORDER BY documents.created_at, documents.id""",
    joins={"uploads": _UPLOADS_OF_DOCUMENTS},
    columns=(
        _DOCUMENT_ID,
        _FILENAME,
        Column(name="page", sql="entities.page", description="from 1"),
        Column(
            name="label",
            sql="entities.label",
            type=ColumnType.TEXT,
            description="such as `PERSON` or `DATE`",
        ),
        Column(
            name="text", sql="entities.text", type=ColumnType.TEXT, description="as in the page"
        ),
        Column(
            name="normal_form",
            sql="entities.normal_form",
            type=ColumnType.TEXT,
            description="equal for all mentions of the same thing",
        ),
        Column(
            name="start", sql="entities.start", description="offset in the page's text, characters"
        ),
        Column(name="end", sql='entities."end"', description="the offset after the entity"),
    ),
    filters={**_DOCUMENT_FILTERS, "label": Filter(sql="entities.label = %(label)s")},
    statuses=DocumentStatus,
)

# One row for each cell. The cells of a table are in one value, in the order of rows and columns.
_TABLES: Final = Kind(
    query="""FROM documents
        CROSS JOIN LATERAL (
            SELECT * FROM document_tables WHERE document_tables.revision_id = documents.revision_id
            ORDER BY number OFFSET 0
        ) AS tables
        CROSS JOIN LATERAL (
            SELECT (cell ->> 0)::integer AS row_number, (cell ->> 1)::integer AS column_number,
                   (cell ->> 2)::integer AS row_span, (cell ->> 3)::integer AS column_span,
                   cell ->> 4 AS text, (cell ->> 5)::integer AS page
            FROM jsonb_array_elements(tables.cells) AS cell OFFSET 0
        ) AS cells
        {joins} WHERE documents.tenant_id = %(tenant_id)s{conditions}
        ORDER BY documents.created_at, documents.id""",
    joins={"uploads": _UPLOADS_OF_DOCUMENTS},
    columns=(
        _DOCUMENT_ID,
        _FILENAME,
        Column(name="table", sql="tables.number", description="in the document, from 1"),
        Column(
            name="caption",
            sql="tables.caption",
            type=ColumnType.TEXT,
            description="the heading beside the table",
        ),
        Column(name="page", sql="cells.page", description="of the cell, from 1"),
        Column(name="row", sql="cells.row_number", description="from 0"),
        Column(name="column", sql="cells.column_number", description="from 0"),
        Column(name="row_span", sql="cells.row_span", description="rows that the cell covers"),
        Column(
            name="column_span", sql="cells.column_span", description="columns that the cell covers"
        ),
        Column(
            name="is_header",
            sql="cells.row_number < tables.header_row_count",
            description="whether the cell names columns",
        ),
        Column(name="text", sql="cells.text", type=ColumnType.TEXT, description="of the cell"),
        Column(name="method", sql="tables.method", description="`ruled` or `borderless`"),
        Column(
            name="confidence",
            sql="tables.confidence",
            description="0 to 1, that it is a table with these cells",
        ),
    ),
    filters=_DOCUMENT_FILTERS,
    statuses=DocumentStatus,
)

_JOBS: Final = Kind(
    query="FROM jobs {joins} WHERE jobs.tenant_id = %(tenant_id)s{conditions}"
    " ORDER BY jobs.created_at, jobs.id",
    joins={
        "uploads": "LEFT JOIN uploads ON uploads.id = jobs.upload_id",
        "failed": "LEFT JOIN LATERAL (SELECT error_code, error_detail FROM steps"
        " WHERE steps.job_id = jobs.id AND steps.status = 'failed' ORDER BY ordinal LIMIT 1)"
        " AS failed ON jobs.status = 'failed'",
    },
    columns=(
        Column(name="job_id", sql="jobs.id", description="the job"),
        Column(name="kind", sql="jobs.kind", description="such as `upload`"),
        Column(name="status", sql="jobs.status", description="such as `completed`"),
        Column(name="stage", sql="jobs.stage", description="the step that it is in, or `done`"),
        Column(name="priority", sql="jobs.priority", description="`interactive` or `bulk`"),
        Column(name="upload_id", sql="jobs.upload_id", description="the upload that it stores"),
        Column(
            name="document_id",
            sql="jobs.document_id",
            description="the document that it reads again",
        ),
        Column(
            name="filename",
            sql="uploads.filename",
            type=ColumnType.TEXT,
            description="of the upload",
            join="uploads",
        ),
        Column(
            name="error_code",
            sql="failed.error_code",
            description="why it failed",
            join="failed",
        ),
        Column(
            name="error_detail",
            sql="failed.error_detail",
            type=ColumnType.TEXT,
            description="the same as a sentence",
            join="failed",
        ),
        Column(
            name="created_at",
            sql="jobs.created_at",
            type=ColumnType.TIME,
            description="when it was added",
        ),
        Column(
            name="started_at",
            sql="jobs.started_at",
            type=ColumnType.TIME,
            description="when a worker took it up",
        ),
        Column(
            name="finished_at",
            sql="jobs.finished_at",
            type=ColumnType.TIME,
            description="when it ended",
        ),
    ),
    filters={
        "status": Filter(sql="jobs.status = %(status)s"),
        "kind": Filter(sql="jobs.kind = %(kind)s"),
        "stage": Filter(sql="jobs.stage = %(stage)s"),
        "priority": Filter(sql="jobs.priority = %(priority)s"),
        "batch_id": Filter(sql="jobs.batch_id = %(batch_id)s"),
        "metadata": Filter(sql="uploads.metadata @> %(metadata)s", join="uploads"),
        "created_after": Filter(sql="jobs.created_at > %(created_after)s"),
        "created_before": Filter(sql="jobs.created_at < %(created_before)s"),
    },
    statuses=JobStatus,
)

_DELIVERIES: Final = Kind(
    query="""FROM webhooks
        CROSS JOIN LATERAL (
            SELECT * FROM deliveries WHERE deliveries.webhook_id = webhooks.id{conditions}
            ORDER BY deliveries.id OFFSET 0
        ) AS deliveries
        {joins} WHERE webhooks.tenant_id = %(tenant_id)s{endpoints}
        ORDER BY webhooks.id""",
    slots=("conditions", "endpoints"),
    joins={
        "attempts": "LEFT JOIN attempts ON attempts.delivery_id = deliveries.id"
        " AND attempts.number = deliveries.attempts_made",
    },
    columns=(
        Column(name="delivery_id", sql="deliveries.id", description="the delivery"),
        Column(name="webhook_id", sql="deliveries.webhook_id", description="the endpoint"),
        Column(name="event_id", sql="deliveries.event_id", description="header `webhook-id`"),
        Column(name="event_type", sql="deliveries.event_type", description="type of the event"),
        Column(name="upload_id", sql="deliveries.upload_id", description="the upload of the event"),
        Column(name="status", sql="deliveries.status", description="such as `delivered`"),
        Column(name="reason", sql="deliveries.reason", description="why it is `discarded`"),
        Column(
            name="attempts_made", sql="deliveries.attempts_made", description="number of attempts"
        ),
        Column(
            name="last_outcome",
            sql="attempts.outcome",
            description="of the last attempt",
            join="attempts",
        ),
        Column(
            name="last_status_code",
            sql="attempts.status_code",
            description="that the endpoint answered last",
            join="attempts",
        ),
        Column(
            name="last_error",
            sql="attempts.error",
            type=ColumnType.TEXT,
            description="of the last attempt",
            join="attempts",
        ),
        Column(
            name="created_at",
            sql="deliveries.created_at",
            type=ColumnType.TIME,
            description="when it was added",
        ),
        Column(
            name="next_attempt_at",
            sql="deliveries.next_attempt_at",
            type=ColumnType.TIME,
            description="when it is attempted next, while it is `pending`",
        ),
        Column(
            name="settled_at",
            sql="deliveries.settled_at",
            type=ColumnType.TIME,
            description="when it ended",
        ),
    ),
    filters={
        "webhook_id": Filter(sql="webhooks.id = %(webhook_id)s", slot="endpoints"),
        "status": Filter(sql="deliveries.status = %(status)s"),
        "event_type": Filter(sql="deliveries.event_type = %(event_type)s"),
        # The first half of an id is the time of the event.
        "since": Filter(sql="deliveries.id >= waybill_first_uuid7(%(since)s)"),
        "until": Filter(sql="deliveries.id < waybill_first_uuid7(%(until)s)"),
    },
    statuses=DeliveryStatus,
)

KINDS: Final[Mapping[ExportKind, Kind]] = MappingProxyType(
    {
        ExportKind.DOCUMENTS: _DOCUMENTS,
        ExportKind.SENTENCES: _SENTENCES,
        ExportKind.ENTITIES: _ENTITIES,
        ExportKind.TABLES: _TABLES,
        ExportKind.JOBS: _JOBS,
        ExportKind.DELIVERIES: _DELIVERIES,
    }
)
