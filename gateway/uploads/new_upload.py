"""An upload as the client declares it, before it is in the database."""

from typing import Any

import msgspec

from gateway.staging import StagedUpload
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind


class NewUpload(msgspec.Struct, frozen=True, kw_only=True):
    """The fields are those of `Upload`; the database adds the times."""

    id: UploadId
    tenant_id: TenantId
    filename: str
    content_type: str | None
    size: int
    chunk_size: int
    chunk_count: int
    sha256: str | None
    staging: StagingKind
    client_metadata: dict[str, str]
    pipeline: dict[str, Any] | None

    @property
    def staged(self) -> StagedUpload:
        """The facts that its chunks need."""
        return StagedUpload(
            id=self.id,
            tenant_id=self.tenant_id,
            size=self.size,
            chunk_size=self.chunk_size,
            kind=self.staging,
        )
