"""The formats that are read: an entry of `FORMATS` makes a format readable.

A worker that only transfers files uses this module too, so it imports no parser: the module of an
extractor is imported when its first file is opened, or by `load`.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import Final

from pipeline.ingest.extractors.extractor import Extractor
from schemas.policy import media_types


@dataclass(frozen=True, kw_only=True)
class Format:
    """Files that one extractor opens.

    Attributes:
        extractor: module and class of the extractor.
        media_types: without parameters, in lower case; the first stands for all.
        suffixes: of names of files, in lower case.
        has_tables: whether the extractor finds tables and figures.
        has_signature: whether the first bytes of every such file show its type. A file with the
            name of such a format and other content is read too, so that it is reported as corrupt
            and not ignored.
    """

    extractor: str
    media_types: tuple[str, ...]
    suffixes: tuple[str, ...]
    has_signature: bool = True
    has_tables: bool = False


PDF: Final = Format(
    extractor="pipeline.ingest.extractors.pdf.document:PdfExtractor",
    media_types=(media_types.PDF,),
    suffixes=(".pdf",),
    has_tables=True,
)

FORMATS: Final = (
    PDF,
    Format(
        extractor="pipeline.ingest.extractors.docx:DocxExtractor",
        media_types=(media_types.DOCX, *sorted(media_types.WORD_TYPES - {media_types.DOCX})),
        suffixes=(".docx", ".docm", ".dotx", ".dotm"),
    ),
    Format(
        extractor="pipeline.ingest.extractors.image:ImageExtractor",
        media_types=(
            "image/png",
            "image/jpeg",
            "image/tiff",
            "image/webp",
            "image/bmp",
            "image/gif",
        ),
        suffixes=(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif"),
    ),
    Format(
        extractor="pipeline.ingest.extractors.html:HtmlExtractor",
        media_types=(media_types.HTML, media_types.XHTML),
        suffixes=(".html", ".htm", ".xhtml"),
        has_signature=False,
    ),
    Format(
        extractor="pipeline.ingest.extractors.plain_text:PlainTextExtractor",
        # Text for people, tables and records. Not source code, style sheets, calendars and XML:
        # their words are mostly not language.
        media_types=(
            "text/plain",
            "text/markdown",
            "text/x-markdown",
            "text/csv",
            "text/tab-separated-values",
            "text/x-log",
            "text/x-rst",
            "application/json",
            "application/jsonl",
            "application/x-ndjson",
        ),
        suffixes=(
            ".txt",
            ".text",
            ".md",
            ".markdown",
            ".csv",
            ".tsv",
            ".log",
            ".rst",
            ".json",
            ".jsonl",
            ".ndjson",
        ),
        has_signature=False,
    ),
)

_BY_MEDIA_TYPE: Final[Mapping[str, Format]] = MappingProxyType(
    {media_type: each for each in FORMATS for media_type in each.media_types}
)
_BY_SUFFIX: Final[Mapping[str, Format]] = MappingProxyType(
    {suffix: each for each in FORMATS for suffix in each.suffixes}
)


def will_be_read(content_type: str, *, declared: str | None, filename: str) -> bool:
    """Return whether a stored file is read; see `pipeline.context.WillBeRead`."""
    return (
        _format_of(content_type, filename=filename) is not None
        # The stored type is another one if the content contradicts the declared type.
        or (declared is not None and _by_declared(declared) is not None)
    )


def may_have_tables(content_type: str, *, filename: str) -> bool:
    """Return whether tables and figures are looked for in a stored file that is read."""
    return (_format_of(content_type, filename=filename) or PDF).has_tables


def media_type_of(content_type: str, *, filename: str) -> str:
    """Return the media type as which a stored file is read.

    PDF, if neither the stored type nor the name shows a format: the file was declared as a format
    that its first bytes do not show, and a damaged PDF may begin with other bytes.
    """
    return (_format_of(content_type, filename=filename) or PDF).media_types[0]


def extractor_for(media_type: str) -> Extractor:
    """Return the extractor of a media type from `media_type_of`."""
    return _extractor_class(_BY_MEDIA_TYPE[media_type])()


def load() -> None:
    """Import the modules of all extractors, so that no child has to import its own."""
    for each in FORMATS:
        _extractor_class(each)


def _format_of(content_type: str, *, filename: str) -> Format | None:
    """Return the format by the stored type, else by the name."""
    essence = media_types.essence_of(content_type)
    if essence in _BY_MEDIA_TYPE:
        return _BY_MEDIA_TYPE[essence]
    named = _BY_SUFFIX.get(PurePath(filename).suffix.lower())
    if named is None or named.has_signature or essence == media_types.UNKNOWN:
        return named
    return None


def _by_declared(declared: str) -> Format | None:
    found = _BY_MEDIA_TYPE.get(media_types.essence_of(declared))
    return found if found is not None and found.has_signature else None


def _extractor_class(of: Format) -> type[Extractor]:
    found: type[Extractor] = pkgutil.resolve_name(of.extractor)
    return found
