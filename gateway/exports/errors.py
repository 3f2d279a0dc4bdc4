"""Errors of exports."""

from schemas.errors import DomainError, ErrorCode
from schemas.ids import ExportId
from schemas.lifecycle import JobStatus


class ExportNotFound(DomainError):
    """The export does not exist, was deleted, or belongs to another tenant."""

    code = ErrorCode.EXPORT_NOT_FOUND

    def __init__(self, export_id: ExportId) -> None:
        super().__init__(f"there is no export {export_id}")


class ExportNotReady(DomainError):
    """There is no file: the export has not ended, or not succeeded."""

    code = ErrorCode.EXPORT_NOT_READY

    def __init__(self, export_id: ExportId, *, status: JobStatus) -> None:
        super().__init__(f"export {export_id} has no file: it is {status}")


class ExportExpired(DomainError):
    """The time of the file is over; it is deleted soon."""

    code = ErrorCode.EXPORT_EXPIRED

    def __init__(self, export_id: ExportId) -> None:
        super().__init__(f"export {export_id} has expired; make a new one")
