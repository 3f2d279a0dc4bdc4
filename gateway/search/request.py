"""What a client looks for."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from schemas.api.search import SearchMode
from schemas.ids import DocumentId, TenantId
from schemas.lifecycle import PassageKind
from schemas.policy.search_words import document_mark, kind_mark, language_mark, tenant_mark


@dataclass(frozen=True, kw_only=True)
class DocumentFilters:
    """Filters by properties of the document; None selects everything.

    Attributes:
        content_type: a media type in lower case, without parameters.
        metadata: names and values of the upload's metadata; empty selects everything.
    """

    content_type: str | None = None
    filename_prefix: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search.

    Attributes:
        text: the query as it was written.
        language: only passages in this language.
        kind: only passages of this kind.
        document_id: only passages of this document.
        documents: which documents.
        limit: hits on a page.
    """

    tenant_id: TenantId
    text: str
    mode: SearchMode = SearchMode.HYBRID
    language: str | None = None
    kind: PassageKind | None = None
    document_id: DocumentId | None = None
    documents: DocumentFilters = DocumentFilters()
    cursor: str | None = None
    limit: int

    def marks(self) -> list[str]:
        """Return the marks of every passage that may be found."""
        marks = [tenant_mark(self.tenant_id)]
        if self.kind is not None:
            marks.append(kind_mark(self.kind))
        if self.language is not None:
            marks.append(language_mark(self.language))
        if self.document_id is not None:
            marks.append(document_mark(self.document_id))
        return marks

    def digest(self) -> str:
        """Return what a cursor is bound to: it continues only the ranking that it comes from."""
        facts = (self.text, self.mode, self.language, self.kind, self.document_id, self.documents)
        return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
