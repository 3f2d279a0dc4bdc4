"""Which files a tenant may upload, and how many.

A quota is reserved when an upload is created and checked again at finalize: by
then the content is known, and the quota may have changed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from schemas.errors import DomainError, ErrorCode
from schemas.policy import media_types
from schemas.policy.media_types import essence_of
from schemas.settings import QuotaSettings

ANY_TYPE: Final = "*/*"

_RANGE: Final = re.compile(r"\*/\*|[\w.+-]+/(?:\*|[\w.+-]+)", re.ASCII)


class FileTooLarge(DomainError):
    """The file is larger than the tenant's limit for one file."""

    code = ErrorCode.FILE_TOO_LARGE
    caused_by_client = True

    def __init__(self, *, size: int, largest: int) -> None:
        super().__init__(f"{size} bytes are more than the {largest} accepted")


class QuotaExceeded(DomainError):
    """The tenant's open and stored uploads would take more bytes than its quota."""

    code = ErrorCode.QUOTA_EXCEEDED
    caused_by_client = True

    def __init__(self, *, quota: int, wanted: int) -> None:
        super().__init__(f"with this upload {wanted} bytes would be in use, {quota} are allowed")


class TooManyOpenUploads(DomainError):
    """The tenant has reached its limit of open uploads; one of them has to end first."""

    code = ErrorCode.TOO_MANY_OPEN_UPLOADS
    retryable = True

    def __init__(self, *, quota: int) -> None:
        super().__init__(f"{quota} uploads are open, and no more are allowed")


class StagedBytesExceeded(DomainError):
    """The tenant's uploads in staging would take more bytes than allowed; transfers free them."""

    code = ErrorCode.STAGED_BYTES_EXCEEDED
    retryable = True

    def __init__(self, *, quota: int, wanted: int) -> None:
        super().__init__(
            f"with this upload {wanted} bytes would be open or not yet transferred, {quota} are allowed"
        )


class TypeNotAllowed(DomainError):
    """The tenant may not upload files of this media type."""

    code = ErrorCode.TYPE_NOT_ALLOWED
    caused_by_client = True

    def __init__(self, media_type: str, *, ranges: Sequence[str]) -> None:
        super().__init__(f"the file is {media_type}; allowed are {', '.join(ranges) or 'none'}")


class NotAMediaRange(ValueError):
    """The text is neither a media type nor a range of media types."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is no media type, and no range such as image/*")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The usage of a tenant, including the upload that is checked."""

    total_bytes: int
    open_uploads: int
    staged_bytes: int


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """The limits of one tenant.

    Attributes:
        file_size: bytes of one file.
        total_bytes: of all open and stored uploads; None is no limit.
        open_uploads: at the same time.
        staged_bytes: of all open and finalized uploads; None is the share of the staging disk.
        staged_share: of the staging disk, between 0 and 1.
        types: media types, or ranges such as `image/*`.
    """

    file_size: int
    total_bytes: int | None
    open_uploads: int
    staged_bytes: int | None
    staged_share: float
    types: tuple[str, ...]

    @classmethod
    def from_settings(cls, settings: QuotaSettings) -> Self:
        return cls(
            file_size=settings.upload_max_size,
            total_bytes=settings.quota_bytes,
            open_uploads=settings.quota_open_uploads,
            staged_bytes=settings.quota_staged_bytes,
            staged_share=settings.quota_staged_share,
            types=tuple(each.strip() for each in settings.allowed_types.split(",") if each.strip()),
        )

    def replaced_by(
        self,
        *,
        file_size: int | None,
        total_bytes: int | None,
        open_uploads: int | None,
        staged_bytes: int | None,
        types: Sequence[str] | None,
    ) -> "Quotas":
        """Return these quotas with a tenant's own quotas in place of the defaults."""
        return Quotas(
            file_size=self.file_size if file_size is None else file_size,
            total_bytes=self.total_bytes if total_bytes is None else total_bytes,
            open_uploads=self.open_uploads if open_uploads is None else open_uploads,
            staged_bytes=self.staged_bytes if staged_bytes is None else staged_bytes,
            staged_share=self.staged_share,
            types=self.types if types is None else tuple(types),
        )

    def on_disk(self, disk_bytes: int | None) -> "Quotas":
        """Return these quotas with the share of a staging disk in place of an unset number of bytes.

        Args:
            disk_bytes: size of the disk; None if uploads are not staged on a disk.
        """
        if self.staged_bytes is not None or disk_bytes is None:
            return self
        return replace(self, staged_bytes=int(disk_bytes * self.staged_share))

    def check_staged_size(self, size: int) -> None:
        """Raise `FileTooLarge` for a file that never fits into staging."""
        if self.staged_bytes is not None and size > self.staged_bytes:
            raise FileTooLarge(size=size, largest=self.staged_bytes)

    def check_size(self, size: int) -> None:
        """Raise `FileTooLarge` for a file that is too large."""
        if size > self.file_size:
            raise FileTooLarge(size=size, largest=self.file_size)

    def check_usage(self, usage: Usage, *, uncertain_bytes: int = 0) -> None:
        """Check that a new upload fits.

        Args:
            usage: the usage with the upload.
            uncertain_bytes: part of the size that may turn out not to belong to the file.

        Raises:
            TooManyOpenUploads: too many uploads are open.
            QuotaExceeded: the uploads take too many bytes.
            StagedBytesExceeded: the uploads in staging take too many bytes.
        """
        if usage.open_uploads > self.open_uploads:
            raise TooManyOpenUploads(quota=self.open_uploads)
        self.check_total(usage, uncertain_bytes=uncertain_bytes)
        staged_bytes = usage.staged_bytes - uncertain_bytes
        if self.staged_bytes is not None and staged_bytes > self.staged_bytes:
            raise StagedBytesExceeded(quota=self.staged_bytes, wanted=usage.staged_bytes)

    def check_total(self, usage: Usage, *, uncertain_bytes: int = 0) -> None:
        """Raise `QuotaExceeded` if the uploads take too many bytes."""
        if self.total_bytes is not None and usage.total_bytes - uncertain_bytes > self.total_bytes:
            raise QuotaExceeded(quota=self.total_bytes, wanted=usage.total_bytes)

    def check_declared(self, declared: str | None) -> None:
        """Raise `TypeNotAllowed` for a declared media type; None is allowed."""
        if declared is not None and not is_allowed(declared, ranges=self.types):
            raise TypeNotAllowed(essence_of(declared), ranges=self.types)

    def check_content(self, sniffed: str | None, *, declared: str | None) -> None:
        """Raise `TypeNotAllowed` for the media type of a received file."""
        actual = actual_type(sniffed, declared=declared)
        if not is_allowed(actual, ranges=self.types):
            raise TypeNotAllowed(actual, ranges=self.types)


def actual_type(sniffed: str | None, *, declared: str | None) -> str:
    """Return the media type that counts: a plausible declaration, else the sniffed type."""
    if declared is not None and media_types.is_plausible(declared, sniffed=sniffed):
        return essence_of(declared)
    return sniffed or media_types.UNKNOWN


def is_allowed(media_type: str, *, ranges: Sequence[str]) -> bool:
    essence = essence_of(media_type)
    family = essence.partition("/")[0]
    return any(essence_of(each) in {ANY_TYPE, f"{family}/*", essence} for each in ranges)


def media_range(text: str) -> str:
    """Parse a media type or a range of media types.

    Raises:
        NotAMediaRange: the text is neither.
    """
    if not _RANGE.fullmatch(text):
        raise NotAMediaRange(text)
    return text.lower()
