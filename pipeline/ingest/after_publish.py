"""The steps that follow the publication of a revision, one after the other.

They belong to the job of the reading. `document.ingested` does not wait for them, nor does the job for
`index`. The transaction that publishes the revision adds the first of them, and the end of each adds
the next one, so that no kill loses a step. A step of the chain whose work fails is completed with its
error: neither the job nor the document fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self, TypeAlias

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from pipeline.ingest.applied_event import SOURCE, EventContext
from pipeline.ingest.extractors import registry
from pipeline.settings import FollowingSettings
from schemas.events.documents import IndexRequested, ReprocessRequested, TablesRequested
from schemas.events.uploads import StoredEvent
from schemas.lifecycle import Priority, SearchState, TablesState
from schemas.settings import EmbeddingModelName, StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.base import table_of
from schemas.tables.events import emit_at_once
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload

ReadDocument: TypeAlias = StoredEvent | ReprocessRequested | TablesRequested
"""An event of a job that reads a document."""

EVENTS: Final[Mapping[StepName, type[TablesRequested | IndexRequested]]] = MappingProxyType(
    {StepName.TABLES: TablesRequested, StepName.INDEX: IndexRequested}
)
"""The steps of the chain in their order, each with the event that starts it."""

_ORDER: Final = tuple(EVENTS)

_JOBS: Final = table_of(Job)
_UPLOADS: Final = table_of(Upload)

# Built once: building a statement costs as much of the processor as executing it.
_CHOICES: Final[Select[Priority, dict[str, Any] | None]] = select(
    _JOBS.c.priority,
    select(_UPLOADS.c.pipeline)
    .where(_UPLOADS.c.id == bindparam("upload_id"))
    .scalar_subquery()
    .label("pipeline"),
).where(_JOBS.c.id == bindparam("job_id"))


@dataclass(frozen=True, kw_only=True)
class Following:
    """Which steps may follow, as the settings say; none by default."""

    finds_tables: bool = False
    makes_vectors: bool = False

    @classmethod
    def from_settings(cls, settings: FollowingSettings) -> Self:
        return cls(
            finds_tables=settings.tables_enabled,
            makes_vectors=settings.embedding_model is not EmbeddingModelName.NONE,
        )


NOTHING: Final = Following()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What follows the publication of one revision.

    Attributes:
        chain: the steps, in order.
        priority: of the job.
        tables_state: of the revision; None if the format of the document has no tables.
        search: what search has of the revision until the end of the chain.
    """

    chain: tuple[StepName, ...]
    priority: Priority
    tables_state: TablesState | None
    search: SearchState


def plan(session: Session, document: ReadDocument, *, following: Following) -> Plan:
    """Return what follows, by the settings, the format, and what the client chose."""
    if following == NOTHING:
        has_tables = _may_have_tables(document)
        return Plan(
            chain=(),
            priority=Priority.INTERACTIVE,
            tables_state=TablesState.OFF if has_tables else None,
            search=SearchState.WORDS,
        )
    choices = session.execute(
        _CHOICES, {"job_id": document.job_id, "upload_id": document.upload_id}
    ).one()
    chain = []
    tables_state = None
    if _may_have_tables(document):
        is_wanted = following.finds_tables and _wants_tables(document, choices.pipeline)
        tables_state = TablesState.PENDING if is_wanted else TablesState.OFF
        if is_wanted:
            chain.append(StepName.TABLES)
    if following.makes_vectors:
        chain.append(StepName.INDEX)
    return Plan(
        chain=tuple(chain),
        priority=choices.priority,
        tables_state=tables_state,
        search=SearchState.PENDING if following.makes_vectors else SearchState.WORDS,
    )


def add_next(
    session: Session,
    document: ReadDocument,
    planned: Plan,
    *,
    after: StepName | None,
    settings: StepSettings,
    event_context: EventContext,
) -> None:
    """Add the step of the chain that follows `after`, if there is one; the first one after None.

    Args:
        session: of the transaction that publishes the revision, or has ended the step before.
        document: the document, from the event that is applied.
        planned: from `plan`, in the same transaction.
        after: the step that has ended.
        settings: shares of the tenants.
        event_context: the event that is applied.
    """
    ended = -1 if after is None else _ORDER.index(after)
    name = next((each for each in planned.chain if _ORDER.index(each) > ended), None)
    if name is None:
        return
    event_id = emit_at_once(
        session,
        EVENTS[name](
            document_id=document.document_id,
            upload_id=document.upload_id,
            job_id=document.job_id,
            filename=document.filename,
            size=document.size,
            sha256=document.sha256,
            content_type=document.content_type,
            object_key=document.object_key,
        ),
        tenant_id=event_context.tenant_id,
        source=SOURCE,
        now=event_context.now,
        traceparent=event_context.traceparent,
    )
    steps.add_step(
        session,
        name,
        job_id=document.job_id,
        tenant_id=event_context.tenant_id,
        priority=planned.priority,
        event_id=event_id,
    )
    session.flush()
    session.execute(steps.release(event_context.tenant_id, name, settings=settings))


def _may_have_tables(document: ReadDocument) -> bool:
    return registry.may_have_tables(document.content_type, filename=document.filename)


def _wants_tables(document: ReadDocument, pipeline: Mapping[str, Any] | None) -> bool:
    if isinstance(document, ReprocessRequested) and document.tables is not None:
        return document.tables
    return bool((pipeline or {}).get("tables", True))
