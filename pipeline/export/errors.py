"""Why an export has no file, or not now."""

from datetime import timedelta

from schemas.errors import DomainError, ErrorCode
from schemas.ids import ExportId


class ExportGone(DomainError):
    """The export was deleted while it was made."""

    code = ErrorCode.EXPORT_NOT_FOUND
    caused_by_client = True

    def __init__(self, export_id: ExportId) -> None:
        super().__init__(f"export {export_id} was deleted")


class ExportTooLarge(DomainError):
    """The file would be larger, or its query longer, than allowed."""

    code = ErrorCode.EXPORT_TOO_LARGE
    caused_by_client = True

    @classmethod
    def by_bytes(cls, bytes_max: int) -> "ExportTooLarge":
        return cls(f"the file would have more than {bytes_max} bytes; choose fewer rows or columns")

    @classmethod
    def by_time(cls, time_max: timedelta) -> "ExportTooLarge":
        seconds = int(time_max.total_seconds())
        return cls(f"the query takes longer than {seconds} s; choose fewer rows or columns")


class NoDiskSpace(DomainError):
    """The disk of the working directory has no space for the file now."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__("there is no disk space for the file; the export is tried again")
