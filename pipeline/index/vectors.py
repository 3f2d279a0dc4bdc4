"""Makes the vectors that the passages of a revision do not have yet, batch by batch.

No transaction is open while a model computes. Each batch is one short transaction: a killed worker
loses a batch at most, and the next one makes only what is missing.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from sqlalchemy import Row, and_, bindparam, select, tuple_
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.index import copying
from schemas.ids import RevisionId
from schemas.runtime.embedding import chosen, models
from schemas.runtime.embedding.port import Vectors
from schemas.tables.base import table_of
from schemas.tables.documents import Document, Page, Revision
from schemas.tables.passages import EmbeddingModel, Passage, PassageEmbedding

BATCH: Final = 256
"""Passages whose vectors are made and written at a time: about a quarter of a second."""

_PASSAGES: Final = table_of(Passage)
_VECTORS: Final = table_of(PassageEmbedding)
_PAGES: Final = table_of(Page)

_START: Final = (0, -1)
"""Before the first passage of the first page."""

_PLACE: Final = tuple_(_PASSAGES.c.page, _PASSAGES.c.ordinal)

# Built once: building costs as much of the processor as executing.
_WITHOUT_VECTOR: Final = (
    select(
        _PASSAGES.c.page,
        _PASSAGES.c.ordinal,
        _PASSAGES.c.start,
        _PASSAGES.c.end,
        _PASSAGES.c.text,
        _PASSAGES.c.digest,
        _PASSAGES.c.tenant_id,
        _PASSAGES.c.document_id,
    )
    .outerjoin(
        _VECTORS,
        and_(
            _VECTORS.c.model_id == bindparam("model_id"),
            _VECTORS.c.revision_id == _PASSAGES.c.revision_id,
            _VECTORS.c.page == _PASSAGES.c.page,
            _VECTORS.c.ordinal == _PASSAGES.c.ordinal,
        ),
    )
    .where(
        _PASSAGES.c.revision_id == bindparam("revision_id"),
        tuple_(bindparam("page"), bindparam("ordinal")) < _PLACE,
        _VECTORS.c.model_id.is_(None),
    )
    .order_by(_PASSAGES.c.page, _PASSAGES.c.ordinal)
    .limit(bindparam("limit"))
)
_TEXT: Final = select(_PAGES.c.text).where(
    _PAGES.c.revision_id == bindparam("revision_id"), _PAGES.c.number == bindparam("page")
)
_LOCK: Final = (
    select(Revision.id)
    .where(Revision.id == bindparam("revision_id"))
    .with_for_update(key_share=True)
)
_IS_SHOWN: Final = (
    select(Document.id)
    .join(Revision, Revision.id == Document.revision_id)
    .where(Revision.id == bindparam("revision_id"), Document.id == Revision.document_id)
)


class RevisionGone(Exception):
    """The revision was deleted, or the document shows another one; nobody needs its vectors."""


class ModelGone(Exception):
    """The model was deleted with its vectors: it was given up or replaced."""


def make(
    context: Context,
    revision_id: RevisionId,
    model: EmbeddingModel,
    *,
    after_batch: Callable[[int], None],
) -> int:
    """Make the missing vectors of a revision; return how many were made.

    Args:
        context: the resources of the process.
        revision_id: a published revision.
        model: whose vectors.
        after_batch: called with the number of vectors of each batch; may raise to end the work.

    Raises:
        EmbedderUnavailable: the model cannot be loaded.
        RevisionGone: nobody needs the vectors any more.
        ModelGone: the model was given up or replaced meanwhile.
    """
    embedder = chosen.named(model.name)
    texts = _Texts(revision_id)
    made = 0
    place = _START
    while True:
        with context.transaction() as session:
            passages = _without_vector(session, revision_id, model_id=model.id, after=place)
            batch = [texts.of(session, passage) for passage in passages]
        if not batch:
            return made
        vectors = embedder.embed(batch)
        with context.transaction() as session:
            _write(session, revision_id, passages, vectors, model_id=model.id, after=place)
        place = (passages[-1].page, passages[-1].ordinal)
        made += len(batch)
        after_batch(len(batch))
        if len(batch) < BATCH:
            return made


class _Texts:
    """The texts of passages; a page is read once for all of its passages, because it may be long."""

    def __init__(self, revision_id: RevisionId) -> None:
        self._revision_id = revision_id
        self._page: int | None = None
        self._text = ""

    def of(self, session: Session, passage: Row[Any]) -> str:
        if passage.text is not None:
            return cast("str", passage.text)
        if passage.page != self._page:
            own = {"revision_id": self._revision_id, "page": passage.page}
            self._text = session.scalar(_TEXT, own) or ""
            self._page = passage.page
        return self._text[passage.start : passage.end]


def _without_vector(
    session: Session, revision_id: RevisionId, *, model_id: int, after: tuple[int, int]
) -> Sequence[Row[Any]]:
    """Return the next passages of a shown revision.

    Raises:
        RevisionGone: the document shows another revision, or is deleted.
    """
    own = {"revision_id": revision_id}
    if session.execute(_IS_SHOWN, own).first() is None:
        raise RevisionGone
    page, ordinal = after
    found = session.execute(
        _WITHOUT_VECTOR,
        own | {"model_id": model_id, "page": page, "ordinal": ordinal, "limit": BATCH},
    )
    return cast("Sequence[Row[Any]]", found.all())


def _write(
    session: Session,
    revision_id: RevisionId,
    passages: Sequence[Row[Any]],
    vectors: Vectors,
    *,
    model_id: int,
    after: tuple[int, int],
) -> None:
    """Write the vectors of a batch, except those that another worker has written meanwhile.

    The lock makes one of two workers wait, and keeps the revision until the vectors are written.
    """
    if not models.keep(session, model_id):
        raise ModelGone
    if session.execute(_LOCK, {"revision_id": revision_id}).first() is None:
        raise RevisionGone
    missing = {
        (passage.page, passage.ordinal, passage.digest)
        for passage in _without_vector(session, revision_id, model_id=model_id, after=after)
    }
    chosen_rows = [
        row
        for row, passage in enumerate(passages)
        if (passage.page, passage.ordinal, passage.digest) in missing
    ]
    if not chosen_rows:
        return
    connection: Any = session.connection().connection.driver_connection
    with (
        connection.cursor() as cursor,
        cursor.copy(
            f"COPY passage_embeddings ({copying.COLUMNS}) FROM STDIN (FORMAT BINARY)"
        ) as copy,
    ):
        copy.write(copying.HEADER)
        for row in copying.rows(
            [(passages[row].page, passages[row].ordinal) for row in chosen_rows],
            vectors[chosen_rows],
            model_id=model_id,
            revision_id=revision_id,
            tenant_id=passages[0].tenant_id,
            document_id=passages[0].document_id,
        ):
            copy.write(row)
        copy.write(copying.TRAILER)
