"""Which files a tenant may send, and how many: decisions alone, from the numbers they are given.

A quota is reserved when an upload is created, and looked at again when it is
finalized: by then it is known what was sent, and the quota may have changed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from schemas.errors import DomainError, ErrorCode
from schemas.policy import media_types
from schemas.policy.media_types import essence_of
from schemas.settings import QuotaSettings

ANY_TYPE: Final = "*/*"

_RANGE: Final = re.compile(r"\*/\*|[\w.+-]+/(?:\*|[\w.+-]+)", re.ASCII)


class FileTooLarge(DomainError):
    """The file is larger than this tenant may send."""

    code = ErrorCode.FILE_TOO_LARGE

    def __init__(self, *, size: int, largest: int) -> None:
        super().__init__(f"{size} bytes are more than the {largest} accepted")


class QuotaExceeded(DomainError):
    """The tenant's uploads, open and stored together, would take too much; something has to go first."""

    code = ErrorCode.QUOTA_EXCEEDED

    def __init__(self, *, quota: int, wanted: int) -> None:
        super().__init__(f"with this upload {wanted} bytes would be in use, {quota} are allowed")


class TooManyOpenUploads(DomainError):
    """The tenant has as many uploads open as it may; one has to end first."""

    code = ErrorCode.TOO_MANY_OPEN_UPLOADS
    retryable = True

    def __init__(self, *, quota: int) -> None:
        super().__init__(f"{quota} uploads are open, and no more are allowed")


class TypeNotAllowed(DomainError):
    """The tenant may not send files of this type."""

    code = ErrorCode.TYPE_NOT_ALLOWED

    def __init__(self, media_type: str, *, ranges: Sequence[str]) -> None:
        super().__init__(f"the file is {media_type}; allowed are {', '.join(ranges) or 'none'}")


class NotAMediaRange(ValueError):
    """The text is neither a media type nor a range of them."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is no media type, and no range such as image/*")


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """What a tenant may have.

    Attributes:
        file_size: bytes of one file.
        total_bytes: of all uploads, open and stored together; None is no limit.
        open_uploads: at once.
        types: media types, or ranges such as `image/*`.
    """

    file_size: int
    total_bytes: int | None
    open_uploads: int
    types: tuple[str, ...]

    @classmethod
    def from_settings(cls, settings: QuotaSettings) -> Self:
        return cls(
            file_size=settings.upload_max_size,
            total_bytes=settings.quota_bytes,
            open_uploads=settings.quota_open_uploads,
            types=tuple(one.strip() for one in settings.allowed_types.split(",") if one.strip()),
        )

    def replaced_by(
        self,
        *,
        file_size: int | None,
        total_bytes: int | None,
        open_uploads: int | None,
        types: Sequence[str] | None,
    ) -> "Quotas":
        """Return these with a tenant's own in the place of those it has."""
        return Quotas(
            file_size=self.file_size if file_size is None else file_size,
            total_bytes=self.total_bytes if total_bytes is None else total_bytes,
            open_uploads=self.open_uploads if open_uploads is None else open_uploads,
            types=self.types if types is None else tuple(types),
        )


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a tenant's uploads take, the one that is decided on included."""

    total_bytes: int
    open_uploads: int


def check_size(size: int, *, quotas: Quotas) -> None:
    """Raise `FileTooLarge` for a file the tenant may not send."""
    if size > quotas.file_size:
        raise FileTooLarge(size=size, largest=quotas.file_size)


def check_usage(usage: Usage, *, quotas: Quotas, slack: int = 0) -> None:
    """Decide whether the upload that was counted last fits.

    Args:
        usage: as it is with that upload.
        quotas: the tenant's.
        slack: how many of its bytes may turn out not to belong to the file.

    Raises:
        TooManyOpenUploads: it is one too many.
        QuotaExceeded: it takes the tenant over its bytes.
    """
    if usage.open_uploads > quotas.open_uploads:
        raise TooManyOpenUploads(quota=quotas.open_uploads)
    check_total(usage, quotas=quotas, slack=slack)


def check_total(usage: Usage, *, quotas: Quotas, slack: int = 0) -> None:
    """Raise `QuotaExceeded` where the tenant's uploads take more bytes than they may."""
    if quotas.total_bytes is not None and usage.total_bytes - slack > quotas.total_bytes:
        raise QuotaExceeded(quota=quotas.total_bytes, wanted=usage.total_bytes)


def check_declared(declared: str | None, *, quotas: Quotas) -> None:
    """Raise `TypeNotAllowed` for what the client says the file is; it need not say anything."""
    if declared is not None and not is_allowed(declared, ranges=quotas.types):
        raise TypeNotAllowed(essence_of(declared), ranges=quotas.types)


def check_content(sniffed: str | None, *, declared: str | None, quotas: Quotas) -> None:
    """Raise `TypeNotAllowed` for what the file turned out to be."""
    actual = actual_type(sniffed, declared=declared)
    if not is_allowed(actual, ranges=quotas.types):
        raise TypeNotAllowed(actual, ranges=quotas.types)


def actual_type(sniffed: str | None, *, declared: str | None) -> str:
    """Return what counts: what the first bytes show, else what the client may be believed."""
    if declared is not None and media_types.is_believable(declared, sniffed=sniffed):
        return essence_of(declared)
    return sniffed or media_types.UNKNOWN


def is_allowed(media_type: str, *, ranges: Sequence[str]) -> bool:
    essence = essence_of(media_type)
    family = essence.partition("/")[0]
    return any(essence_of(one) in {ANY_TYPE, f"{family}/*", essence} for one in ranges)


def media_range(text: str) -> str:
    """Read a media type or a range of them.

    Raises:
        NotAMediaRange: it is neither.
    """
    if not _RANGE.fullmatch(text):
        raise NotAMediaRange(text)
    return text.lower()
