"""Events of an export: a file with the rows of a query."""

from datetime import datetime
from typing import Annotated, ClassVar, TypeAlias

import msgspec

from schemas.ids import ExportId, JobId
from schemas.lifecycle import ExportFormat, ExportKind


class _ExportEvent(msgspec.Struct, frozen=True, kw_only=True):
    export_id: ExportId
    job_id: JobId

    @property
    def subject(self) -> ExportId:
        return self.export_id


class ExportRequested(_ExportEvent, frozen=True, kw_only=True):
    """An export is to be made; only starts the step of a job."""

    TYPE: ClassVar[str] = "export.requested"


class ExportCompleted(_ExportEvent, frozen=True, kw_only=True):
    """The file of an export can be downloaded: `GET /exports/{export_id}/file`."""

    TYPE: ClassVar[str] = "export.completed"

    kind: ExportKind
    format: ExportFormat
    rows: Annotated[int, msgspec.Meta(description="without the header of a CSV file")]
    size: Annotated[int, msgspec.Meta(description="bytes of the file")]
    sha256: Annotated[str, msgspec.Meta(description="of the file, hex")]
    expires_at: Annotated[datetime, msgspec.Meta(tz=True, description="when the file is deleted")]


class ExportFailed(_ExportEvent, frozen=True, kw_only=True):
    """There is no file; a new export may succeed."""

    TYPE: ClassVar[str] = "export.failed"

    kind: ExportKind
    format: ExportFormat
    code: Annotated[
        str,
        msgspec.Meta(
            description="stable code of the error, as in the job: `export_too_large`, or a fault of"
            " the system, such as `store_unavailable`, `attempts_exhausted` or `internal`"
        ),
    ]
    detail: Annotated[str, msgspec.Meta(description="a sentence for people")]


ExportEvent: TypeAlias = ExportRequested | ExportCompleted | ExportFailed
