"""DOCX (ECMA-376): the text of its paragraphs, tables, notes, headers and footers."""

import mmap
import posixpath
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, ClassVar, Final

from lxml import etree

from pipeline.ingest import text
from pipeline.ingest.errors import DocumentCorrupt, DocumentEncrypted, DocumentLimitExceeded
from pipeline.ingest.extractors import text_document
from pipeline.ingest.extractors.extractor import (
    Attachment,
    DocumentMetadata,
    Extractor,
    OpenDocument,
    Span,
    SpanKind,
    Structure,
)
from pipeline.ingest.extractors.text_document import PAGE_BREAK, TextDocument
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome

_METADATA_MAX: Final = 1_000
_ATTACHMENTS_MAX: Final = 1_000
# A document has three of each in every section; files with more repeat them.
_PARTS_MAX: Final = 100

# An encrypted package is an OLE container with a stream of this name (MS-OFFCRYPTO, section 2.3).
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE: Final = "EncryptedPackage".encode("utf-16-le")
_IS_ENCRYPTED: Final = 0x1  # in the flags of a member of an archive

_DOCUMENT: Final = "word/document.xml"

_FALSE: Final = frozenset({"0", "false", "off", "none"})
_HEADING_STYLE: Final = "heading "
_LEVELS: Final = 9
# Results of these fields are numbers of pages, which are wrong on other pages.
_PAGE_FIELDS: Final = frozenset({"PAGE", "NUMPAGES", "SECTIONPAGES"})
_FIELD_CODE_MAX: Final = 100

# Older twins of drawings, moved and deleted text, phonetic guides.
_SKIPPED: Final = frozenset({"Fallback", "moveFrom", "del", "rt"})
_CHARACTERS: Final[Mapping[str, str]] = MappingProxyType(
    {"tab": "\t", "ptab": "\t", "cr": "\n", "noBreakHyphen": "\u2011"}
)
# Parts whose text is part of the document's.
_TEXTS: Final = frozenset({"header", "footer", "footnotes", "endnotes"})
_PICTURES: Final = frozenset({"drawing", "pict", "object"})
_NOTE_REFERENCES: Final[Mapping[str, str]] = MappingProxyType(
    {"footnoteReference": "footnote", "endnoteReference": "endnote"}
)
# Elements that nothing refers to once they have ended.
_FREED: Final = frozenset({"p", "tr", "tbl"})

_EXTRA_PROPERTIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "description": "description",
        "category": "category",
        "language": "language",
        "lastModifiedBy": "last_modified_by",
        "Company": "company",
    }
)

# The elements that a story looks at: most others are properties of the layout.
_TAGS: Final = tuple(
    f"{{*}}{name}"
    for name in (
        *_SKIPPED, *_CHARACTERS, *_PICTURES, *_NOTE_REFERENCES, *_FREED,
        "br", "fldChar", "fldSimple", "instrText", "lastRenderedPageBreak", "pPr", "r", "sym", "t",
        "tc", "vanish",
    )
)  # fmt: skip

_DAMAGE: Final = (etree.XMLSyntaxError, zipfile.BadZipFile, zlib.error, DocumentCorrupt, EOFError)


class DocxExtractor(Extractor):
    """Opens documents and templates of Word."""

    name: ClassVar[str] = "docx"

    @contextmanager
    def open(
        self,
        file: Path,
        *,
        limits: ReadingLimits,
        password: str | None,  # noqa: ARG002  # encrypted documents are not supported
    ) -> Iterator[OpenDocument]:
        _refuse_encrypted(file)
        with zipfile.ZipFile(file) as archive:
            yield _read(_Package(archive, limits=limits), limits=limits)


def _refuse_encrypted(file: Path) -> None:
    with file.open("rb") as opened:
        if opened.read(len(_OLE)) != _OLE:
            return
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(_ENCRYPTED_PACKAGE) >= 0:
                raise DocumentEncrypted("Encrypted Word documents are not supported.")
    raise DocumentCorrupt("The file has a format older than DOCX.")


@dataclass(frozen=True, kw_only=True)
class _Relationship:
    kind: str  # the end of its URI, which differs between the two variants of the standard
    target: str


class _Package:
    """The parts of a document; their unpacked size is limited before they are unpacked."""

    def __init__(self, archive: zipfile.ZipFile, *, limits: ReadingLimits) -> None:
        self.defects = 0
        self.lacks_text = False
        self._archive = archive
        self._allowed = self._left = limits.archive_bytes
        # Some programs write backslashes, or other cases than in the references.
        self._members = {
            member.filename.replace("\\", "/").lstrip("/").lower(): member
            for member in archive.infolist()
        }

    def has(self, part: str) -> bool:
        return part.lower() in self._members

    def events(self, part: str) -> Iterator[tuple[str, etree._Element]]:
        """Yield the starts and ends of the elements of a part; free the large ones after their end.

        Raises:
            DocumentCorrupt: the part is missing.
            DocumentEncrypted: the part is encrypted.
            DocumentLimitExceeded: the parts read so far and this one are too large.
            etree.XMLSyntaxError, zipfile.BadZipFile, zlib.error, EOFError: the part is damaged.
        """
        for event, element in self._parse(part, tag=_TAGS):
            yield event, element
            if event == "end" and _local_name(element) in _FREED:
                _free(element)

    def roots(self, relationships: Iterable[_Relationship], kind: str) -> Iterator[etree._Element]:
        """Yield the trees of the related parts of a kind.

        Damage of such a part must not lose the text of the document: the part is left out, and
        `lacks_text` says whether it had text.
        """
        for part in self.parts(relationships, kind)[:_PARTS_MAX]:
            try:
                yield self._root(part)
            except _DAMAGE:
                self.defects += 1
                self.lacks_text |= kind in _TEXTS

    def parts(self, relationships: Iterable[_Relationship], kind: str) -> list[str]:
        """Return the existing targets of a kind, each once: sections share their headers."""
        found = dict.fromkeys(
            each.target for each in relationships if each.kind.endswith(f"/{kind}")
        )
        return [target for target in found if self.has(target)]

    def relationships(self, part: str) -> list[_Relationship]:
        """Return the relationships of a part, or of the package for an empty name."""
        folder, name = posixpath.split(part)
        file = posixpath.join(folder, "_rels", f"{name}.rels")
        if not self.has(file):
            return []
        return [
            _Relationship(
                kind=each.get("Type", ""),
                target=posixpath.normpath(
                    posixpath.join("/", folder, each.get("Target", ""))
                ).lstrip("/"),
            )
            for each in self._root(file)
            if each.get("TargetMode") != "External"
        ]

    def attachments(self) -> tuple[Attachment, ...]:
        embedded = [
            member
            for name, member in self._members.items()
            if "/embeddings/" in f"/{name}" and not member.is_dir()
        ]
        return tuple(
            Attachment(
                name=text.clean_line(posixpath.basename(each.filename), longest=_METADATA_MAX)
                or "embedded",
                size_bytes=each.file_size,
            )
            for each in embedded[:_ATTACHMENTS_MAX]
        )

    def _root(self, part: str) -> etree._Element:
        root = None
        for _, root in self._parse(part):  # noqa: B007  # the last one is the root
            pass
        if root is None:
            raise DocumentCorrupt("A part of the document is empty.")
        return root

    def _parse(
        self, part: str, *, tag: Sequence[str] | None = None
    ) -> Iterator[tuple[str, etree._Element]]:
        with self._open(part) as content:
            # No entity is expanded, nothing is fetched, and depth and length of texts are limited.
            yield from etree.iterparse(
                content,
                events=("start", "end"),
                tag=tag,
                resolve_entities=False,
                load_dtd=False,
                no_network=True,
                huge_tree=False,
                remove_comments=True,
                remove_pis=True,
            )

    def _open(self, part: str) -> IO[bytes]:
        member = self._members.get(part.lower())
        if member is None:
            raise DocumentCorrupt("The file is no Word document.")
        if member.flag_bits & _IS_ENCRYPTED:
            raise DocumentEncrypted("Encrypted archives are not supported.")
        # `zipfile` unpacks no more bytes than the archive states here.
        self._left -= member.file_size
        if self._left < 0:
            raise DocumentLimitExceeded(f"The document unpacks to more than {self._allowed} bytes.")
        return self._archive.open(member)


def _read(package: _Package, *, limits: ReadingLimits) -> TextDocument:
    of_package = package.relationships("")
    main = next(iter(package.parts(of_package, "officeDocument")), _DOCUMENT)
    related = package.relationships(main)
    longest = limits.text_bytes
    levels: dict[str, int] = {}
    for root in package.roots(related, "styles"):
        levels |= _heading_levels(root)
    notes: dict[tuple[str, str], str] = {}
    for kind in ("footnote", "endnote"):
        for root in package.roots(related, f"{kind}s"):
            notes |= _notes(root, kind=kind, longest=longest)
    headers = _once(package.roots(related, "header"), longest=longest)
    footers = _once(package.roots(related, "footer"), longest=longest)
    properties: dict[str, str] = {}
    for kind in ("extended-properties", "core-properties"):
        for root in package.roots(of_package, kind):
            properties |= _properties(root)
    body = _Story.read(
        package.events(main), longest=longest, levels=levels, notes=notes, has_pages=True
    )

    start = f"{headers}\n\n" if headers else ""
    content = start + body.text()
    spans = [Span(SpanKind.HEADER, 0, len(headers))] if headers else []
    if footers:
        content += "\n\n"
        spans.append(Span(SpanKind.FOOTER, len(content), len(content) + len(footers)))
        content += footers
    return TextDocument(
        content,
        limits=limits,
        engine=("lxml", ".".join(str(number) for number in etree.LXML_VERSION[:3])),
        structure=Structure(metadata=_metadata(properties), attachments=package.attachments()),
        spans=tuple(spans),
        headings=tuple(
            (len(start) + offset, level, title) for offset, level, title in body.headings
        ),
        cut_by=_cut_by(package, body, longest=longest, has_text=bool(content.strip())),
        warnings=package.defects,
    )


def _cut_by(
    package: _Package, body: "_Story", *, longest: int, has_text: bool
) -> tuple[Outcome, str] | None:
    """Return why text is missing, with a sentence for clients."""
    if body.is_cut:
        return Outcome.LIMIT_TEXT, f"Only {longest} characters of text are read."
    if package.lacks_text:
        return Outcome.CORRUPT, "Headers, footers or notes are damaged, and left out."
    if body.has_pictures and not has_text:
        return Outcome.NEEDS_OCR, "The document has pictures and no text."
    return None


def _once(roots: Iterable[etree._Element], *, longest: int) -> str:
    """Return headers or footers, those with the same text once."""
    stories = (_Story.read(_walk(root), longest=longest).text() for root in roots)
    return "\n".join(dict.fromkeys(each for each in stories if each))


def _walk(root: etree._Element) -> Iterator[tuple[str, etree._Element]]:
    yield from etree.iterwalk(root, events=("start", "end"), tag=_TAGS)


@dataclass
class _Paragraph:
    containers: int  # how many were open where it began
    parts: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)  # text boxes and notes
    level: int | None = None
    ends_section: bool = False


class _Story:
    """The text of the body, of a header or of a note, from the events of its XML.

    Elements are recognised by their local names: the two variants of the standard differ in their
    namespaces.
    """

    def __init__(
        self,
        *,
        longest: int,
        levels: Mapping[str, int],
        notes: Mapping[tuple[str, str], str],
        has_pages: bool,
    ) -> None:
        self.headings: list[tuple[int, int, str]] = []
        self.is_cut = False
        self.has_pictures = False
        self._longest = longest
        self._levels = levels
        self._notes = notes
        self._has_pages = has_pages
        self._parts: list[str] = []
        self._size = 0
        self._paragraphs: list[_Paragraph] = []
        self._cells: list[list[str]] = []
        self._rows: list[list[str]] = []
        self._fields: list[_Field] = []
        self._skipped = 0
        self._run_is_hidden = False
        self._last_was_row = False
        self._page_has_content = False
        self._row_has_break = False
        self._notes_shown = 0
        self._ends: Final[Mapping[str, Callable[[etree._Element], None]]] = {
            "p": self._end_paragraph,
            "pPr": self._set_properties,
            "r": self._end_run,
            "vanish": self._hide_run,
            "tc": self._end_cell,
            "tr": self._end_row,
            "fldSimple": self._end_field,
            "fldChar": self._change_field,
            "instrText": self._extend_field,
        }

    @classmethod
    def read(
        cls,
        events: Iterable[tuple[str, etree._Element]],
        *,
        longest: int,
        levels: Mapping[str, int] = MappingProxyType({}),
        notes: Mapping[tuple[str, str], str] = MappingProxyType({}),
        has_pages: bool = False,
    ) -> "_Story":
        """Return the story of an XML document or of an element.

        Args:
            events: starts and ends of its elements.
            longest: characters; the rest is left out.
            levels: level of the headings with a style, by the identifier of the style.
            notes: text of notes by kind and identifier.
            has_pages: whether page breaks count.
        """
        story = cls(longest=longest, levels=levels, notes=notes, has_pages=has_pages)
        for event, element in events:
            if event == "start":
                story._start(_local_name(element), element)  # its own class
            else:
                story._end(_local_name(element), element)  # its own class
            if story.is_cut:
                break
        return story

    def text(self) -> str:
        return "".join(self._parts)

    def _start(self, name: str, element: etree._Element) -> None:
        if name in _SKIPPED:
            self._skipped += 1
        elif name == "p":
            self._paragraphs.append(_Paragraph(containers=len(self._cells)))
        elif name == "tr":
            self._rows.append([])
        elif name == "tc":
            self._cells.append([])
        elif name == "fldSimple":
            self._fields.append(_Field(code=_value(element, "instr").strip(), is_result=True))

    def _end(self, name: str, element: etree._Element) -> None:
        if name in _SKIPPED:
            self._skipped = max(0, self._skipped - 1)
        elif (end := self._ends.get(name)) is not None:
            end(element)
        elif self._paragraphs and not self._is_silent():
            self._end_content(name, element)

    def _end_content(self, name: str, element: etree._Element) -> None:
        if name == "t":
            self._write(element.text or "")
        elif name in _CHARACTERS:
            if _local_name(element.getparent()) == "r":
                self._write(_CHARACTERS[name])
        elif name == "br":
            if _value(element, "type") == "page":
                self._break_page()
            else:
                self._write("\n")
        elif name == "lastRenderedPageBreak":
            self._break_page()
        elif name == "sym":
            self._write(_symbol(element))
        elif name in _PICTURES:
            self._page_has_content = self.has_pictures = True
        elif name in _NOTE_REFERENCES:
            self._refer(_NOTE_REFERENCES[name], _value(element, "id"))

    def _is_silent(self) -> bool:
        return (
            self._skipped > 0
            or self._run_is_hidden
            or any(each.is_result and each.is_page_number for each in self._fields)
        )

    def _set_properties(self, properties: etree._Element) -> None:
        if not self._paragraphs:
            return
        paragraph = self._paragraphs[-1]
        for each in properties:
            name = _local_name(each)
            if name == "pStyle" and paragraph.level is None:
                paragraph.level = self._levels.get(_value(each, "val"))
            elif name == "outlineLvl":
                paragraph.level = _level(each)
            elif name == "pageBreakBefore" and _is_on(each):
                self._break_page()
            elif name == "sectPr":
                kinds = [_value(part, "val") for part in each if _local_name(part) == "type"]
                paragraph.ends_section = kinds != ["continuous"]

    def _end_paragraph(self, _: etree._Element) -> None:
        paragraph = self._paragraphs.pop()
        line = text_document.clean("".join(paragraph.parts)).strip(" \t\n")
        outer = self._paragraphs[-1] if self._paragraphs else None
        if outer is not None and outer.containers == len(self._cells):
            outer.after += [each for each in (line, *paragraph.after) if each]
            return
        if self._cells:
            self._cells[-1] += [line, *paragraph.after]
            return
        if line:
            title = " ".join(line.split())[:_METADATA_MAX]
            offset = self._append(line, separator="\n\n")
            if paragraph.level is not None and title and not self.is_cut:
                self.headings.append((offset, paragraph.level, title))
        for each in paragraph.after:
            self._append(each, separator="\n\n")
        if paragraph.ends_section and self._page_has_content:
            self._append(PAGE_BREAK, separator="")
            self._page_has_content = False

    def _end_cell(self, _: etree._Element) -> None:
        content = " ".join(self._cells.pop())
        self._row_has_break |= PAGE_BREAK in content
        if self._rows:
            self._rows[-1].append(" ".join(content.split()))

    def _end_row(self, _: etree._Element) -> None:
        line = "\t".join(self._rows.pop()).rstrip("\t")
        if self._cells:
            self._cells[-1].append(line)
            return
        if line:
            self._append(line, separator="\n" if self._last_was_row else "\n\n")
            self._last_was_row = True
        if self._row_has_break:
            self._append(PAGE_BREAK, separator="")
            self._row_has_break = False

    def _append(self, content: str, *, separator: str) -> int:
        """Append a line; return its offset."""
        if self._parts:
            content = separator + content
        else:
            separator = ""
        if self._size + len(content) > self._longest:
            content = content[: self._longest - self._size]
            self.is_cut = True
        offset = self._size + len(separator)
        self._parts.append(content)
        self._size += len(content)
        self._last_was_row = False
        return offset

    def _write(self, content: str) -> None:
        self._paragraphs[-1].parts.append(content)
        if not content.isspace():
            self._page_has_content = True

    def _break_page(self) -> None:
        """Begin a page, unless it began already: Word repeats a break where it ended the page."""
        if self._has_pages and self._page_has_content:
            self._paragraphs[-1].parts.append(PAGE_BREAK)
            self._page_has_content = False

    def _end_run(self, _: etree._Element) -> None:
        self._run_is_hidden = False

    def _hide_run(self, vanish: etree._Element) -> None:
        # Not for the mark that ends a paragraph.
        properties = vanish.getparent()
        if properties is not None and _local_name(properties.getparent()) == "r":
            self._run_is_hidden = _is_on(vanish)

    def _end_field(self, _: etree._Element) -> None:
        if self._fields:
            self._fields.pop()

    def _extend_field(self, code: etree._Element) -> None:
        if self._fields:
            longer = self._fields[-1].code + (code.text or "")
            self._fields[-1].code = longer.lstrip()[:_FIELD_CODE_MAX]

    def _change_field(self, mark: etree._Element) -> None:
        change = _value(mark, "fldCharType")
        if change == "begin":
            self._fields.append(_Field())
        elif self._fields and change == "separate":
            self._fields[-1].is_result = True
        elif self._fields and change == "end":
            self._fields.pop()

    def _refer(self, kind: str, identifier: str) -> None:
        note = self._notes.get((kind, identifier))
        if note:
            self._notes_shown += 1
            self._write(f"[{self._notes_shown}]")
            self._paragraphs[-1].after.append(f"[{self._notes_shown}] {note}")


@dataclass
class _Field:
    code: str = ""
    is_result: bool = False

    @property
    def is_page_number(self) -> bool:
        return self.code.partition(" ")[0] in _PAGE_FIELDS


def _heading_levels(styles: etree._Element) -> dict[str, int]:
    """Return the level of each paragraph style that makes headings."""
    own: dict[str, int] = {}
    parents: dict[str, str] = {}
    for style in styles:
        identifier = _value(style, "styleId")
        for each in style.iter():
            name = _local_name(each)
            if name == "name" and _value(each, "val").lower().startswith(_HEADING_STYLE):
                number = _value(each, "val")[len(_HEADING_STYLE) :]
                if number.isascii() and number.isdigit() and 1 <= int(number) <= _LEVELS:
                    own[identifier] = int(number) - 1
            elif name == "basedOn":
                parents[identifier] = _value(each, "val")
            elif name == "outlineLvl" and (level := _level(each)) is not None:
                own.setdefault(identifier, level)
    for identifier in parents:
        ancestor, steps = identifier, 0
        while ancestor in parents and ancestor not in own and steps < _LEVELS:
            ancestor, steps = parents[ancestor], steps + 1
        if ancestor in own:
            own.setdefault(identifier, own[ancestor])
    return own


def _notes(root: etree._Element, *, kind: str, longest: int) -> dict[tuple[str, str], str]:
    """Return the notes of a part by their identifiers, each on one line."""
    found: dict[tuple[str, str], str] = {}
    for note in root:
        # Separators between text and notes have a type.
        if _local_name(note) == kind and _value(note, "type") in {"", "normal"}:
            story = _Story.read(_walk(note), longest=longest)
            found[kind, _value(note, "id")] = " ".join(story.text().split())
    return found


def _properties(root: etree._Element) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in root:
        value = text.clean_line(each.text or "", longest=_METADATA_MAX)
        if value:
            found.setdefault(_local_name(each), value)
    return found


def _metadata(properties: Mapping[str, str]) -> DocumentMetadata:
    return DocumentMetadata(
        title=properties.get("title"),
        author=properties.get("creator"),
        subject=properties.get("subject"),
        keywords=properties.get("keywords"),
        creator=properties.get("Application"),
        created=_date(properties.get("created")),
        modified=_date(properties.get("modified")),
        extra={
            name: properties[key] for key, name in _EXTRA_PROPERTIES.items() if key in properties
        },
    )


def _date(value: str | None) -> datetime | None:
    """Return a date of W3CDTF."""
    try:
        return None if value is None else datetime.fromisoformat(value)
    except ValueError:
        return None


def _local_name(element: etree._Element | None) -> str:
    tag = None if element is None else element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _value(element: etree._Element, name: str) -> str:
    """Return an attribute in whatever namespace, or an empty text."""
    return next(
        (str(value) for key, value in element.attrib.items() if str(key).endswith(name)), ""
    )


def _is_on(element: etree._Element) -> bool:
    return _value(element, "val").lower() not in _FALSE


def _level(element: etree._Element) -> int | None:
    value = _value(element, "val")
    return int(value) if len(value) == 1 and value.isdecimal() and int(value) < _LEVELS else None


def _symbol(element: etree._Element) -> str:
    try:
        return chr(int(_value(element, "char"), 16))
    except ValueError:
        return ""


def _free(element: etree._Element) -> None:
    """Free an element that has ended, and the siblings before it."""
    element.clear()
    parent = element.getparent()
    if parent is not None:
        del parent[: parent.index(element)]
