"""HTML: the text that a browser shows without running scripts."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Final

import selectolax
from selectolax.lexbor import LexborHTMLParser, LexborNode

from pipeline.ingest import text
from pipeline.ingest.errors import DocumentLimitExceeded
from pipeline.ingest.extractors import encodings, text_document
from pipeline.ingest.extractors.extractor import (
    DocumentMetadata,
    Extractor,
    OpenDocument,
    Structure,
)
from pipeline.ingest.extractors.text_document import TextDocument
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome

_METADATA_MAX: Final = 1_000
_LANG_MAX: Final = 35  # RFC 5646, section 4.4.1
_META_MAX: Final = 500

_INVISIBLE: Final = frozenset(
    {
        "script", "style", "template", "noscript", "head", "title", "meta", "link", "iframe",
        "object", "embed", "audio", "video", "canvas", "svg", "math", "datalist", "option",
        "map", "area", "noframes", "input", "select",
    }
)  # fmt: skip
_PARAGRAPHS: Final = frozenset(
    {
        "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre",
        "section", "article", "header", "footer", "nav", "aside", "main", "figure", "form", "hr",
        "fieldset", "details", "address",
    }
)  # fmt: skip
_LINES: Final = frozenset(
    {
        "div", "li", "dt", "dd", "tr", "caption", "figcaption", "legend", "summary", "center",
        "thead", "tbody", "tfoot", "body", "html", "hgroup", "search", "optgroup",
    }
)  # fmt: skip
_CELLS: Final = frozenset({"td", "th"})
_ROWS: Final = frozenset({"tr", "table"})
_HEADINGS: Final = {f"h{level}": level - 1 for level in range(1, 7)}
_HIDDEN_STYLE: Final = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_SPACES: Final = re.compile(r"[ \t\n\r\f]+")

# WHATWG HTML, "prescan a byte stream to determine its encoding": within the first 1024 bytes.
_PRESCANNED_BYTES: Final = 1024
_META_CHARSET: Final = re.compile(
    rb"<meta\b[^>]*?\bcharset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE
)
_XML_ENCODING: Final = re.compile(
    rb"^\s*<\?xml[^>]*?\bencoding\s*=\s*[\"']([\w.:-]+)", re.IGNORECASE
)
# WHATWG Encoding: labels that stand for a larger encoding, or that cannot be meant.
_ENCODING_OF_LABEL: Final = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "big5": "big5hkscs",
    "euc_kr": "cp949",
    "utf-16": "utf_8",
    "utf-16-le": "utf_8",
    "utf-16-be": "utf_8",
}

# The parser's time grows with the square of the depth: 100,000 elements inside each other take it
# 50 seconds. Browsers build no deeper trees than this either.
_DEPTH_MAX: Final = 512
# The begin of a tag alone: a search for its end would take a time that grows with the square of the
# size of a file without ends.
_TAG: Final = re.compile(r"<(/?)([a-zA-Z][^\s/<>]*+)")
_END_OF_CODE: Final = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style")}
_VOID: Final = frozenset(
    {
        "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param",
        "source", "track", "wbr",
    }
)  # fmt: skip
# Their end tags may be left out, and the next of them closes the one before.
_CLOSED_BY_NEXT: Final = frozenset({"p", "li", "dt", "dd"})
# The same, but not inside of drawings and formulas.
_CLOSED_BY_NEXT_IN_HTML: Final = frozenset(
    {"td", "th", "tr", "thead", "tbody", "tfoot", "colgroup"}
)
_FOREIGN: Final = re.compile(r"<(?:svg|math)\b", re.IGNORECASE)


class HtmlExtractor(Extractor):
    """Opens web pages."""

    name: ClassVar[str] = "html"

    @contextmanager
    def open(
        self,
        file: Path,
        *,
        limits: ReadingLimits,
        password: str | None,  # noqa: ARG002  # HTML is never encrypted
    ) -> Iterator[OpenDocument]:
        with file.open("rb") as opened:
            content = opened.read(limits.markup_bytes)
            is_cut = bool(opened.read(1))
        decoded = encodings.decode(content, declared=_declared_encoding(content), is_cut=is_cut)
        del content
        if decoded.text.count("<") > limits.markup_elements:
            raise DocumentLimitExceeded(
                f"The document has more than {limits.markup_elements} elements."
            )
        tree = LexborHTMLParser(_flattened(decoded.text.replace("\0", "")))
        visible = _VisibleText(limits.text_bytes)
        if tree.body is not None:
            visible.read(tree.body)
        cut_by = None
        if visible.is_cut:
            cut_by = (Outcome.LIMIT_TEXT, f"Only {limits.text_bytes} bytes of text are read.")
        elif is_cut:
            cut_by = (
                Outcome.LIMIT_PAGE_CONTENT,
                f"Only the first {limits.markup_bytes} bytes are read.",
            )
        yield TextDocument(
            visible.text(),
            limits=limits,
            engine=("selectolax", selectolax.__version__),
            structure=Structure(metadata=_metadata(tree, encoding=decoded.encoding)),
            headings=tuple(visible.headings),
            cut_by=cut_by,
            warnings=decoded.replaced,
        )


class _VisibleText:
    """Collects the text of a tree; its blocks become lines and paragraphs."""

    def __init__(self, longest: int) -> None:
        self.headings: list[tuple[int, int, str]] = []
        self.is_cut = False
        self._longest = longest
        self._parts: list[str] = []
        self._size = 0
        self._pending = ""  # white space that is written before the next word
        self._preformatted = 0
        self._cell: int | None = None  # parts before the last cell of the row
        self._is_at_cell_start = False
        self._heading: tuple[int, int] | None = None

    def read(self, root: LexborNode) -> None:
        """Walk the tree without recursion."""
        node: LexborNode | None = root
        while node is not None and not self.is_cut:
            child = None
            if node.is_text_node:
                self._write(node.text_content or "")
            elif node.is_element_node and not _is_hidden(node):
                self._enter(node.tag or "")
                child = node.first_child
                if child is None:
                    self._leave(node.tag or "")
            if child is not None:
                node = child
                continue
            node = self._following(node, root=root)

    def text(self) -> str:
        return "".join(self._parts)

    def _following(self, node: LexborNode, *, root: LexborNode) -> LexborNode | None:
        """Return the node after a node and its children; leave the parents that end with it."""
        current = node
        while current.mem_id != root.mem_id:
            following = current.next
            if following is not None:
                return following
            parent = current.parent
            if parent is None:
                return None
            self._leave(parent.tag or "")
            current = parent
        return None

    def _enter(self, tag: str) -> None:
        if tag == "br":
            self._separate("\n" * min(2, 1 + self._pending.count("\n")))
        self._break(tag)
        if tag in _CELLS:
            self._enter_cell()
        elif tag in _ROWS:
            self._cell = None
        if tag == "pre":
            self._preformatted += 1
        if tag in _HEADINGS:
            self._heading = (len(self._parts), self._size)

    def _leave(self, tag: str) -> None:
        if tag in _CELLS:
            self._is_at_cell_start = False
            if self._cell is not None and len(self._parts) > self._cell:
                self._pending = self._pending.replace("\n\n", "\n")
        self._break(tag)
        if tag in _ROWS:
            self._cell = None
        if tag == "pre":
            self._preformatted -= 1
        if tag in _HEADINGS and self._heading is not None:
            index, offset = self._heading
            written = "".join(self._parts[index:])
            title = text.clean_line(written, longest=_METADATA_MAX)
            if title is not None:
                leading = len(written) - len(written.lstrip())
                self.headings.append((offset + leading, _HEADINGS[tag], title))
            self._heading = None

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._separate("\n\n")
        elif tag in _LINES:
            self._separate("\n")

    def _enter_cell(self) -> None:
        if self._cell is not None:
            written = "".join(self._parts[self._cell :]).strip()
            if not written:
                self._pending += "\t"
            elif "\n" not in written:
                self._pending = "\t"
        self._cell = len(self._parts)
        self._is_at_cell_start = True

    def _separate(self, line_ends: str) -> None:
        """Write line ends before the next word; a cell begins on the line of its row."""
        if self._parts and not self._is_at_cell_start:
            self._pending = max(line_ends, "\n" * self._pending.count("\n"))

    def _write(self, raw: str) -> None:
        if self._preformatted:
            self._append(text_document.clean(raw.replace("\f", " ")))
            return
        words = _SPACES.sub(" ", raw)
        if words == " ":
            self._space()
            return
        if words.startswith(" "):
            self._space()
        content = words.strip(" ")
        content = text_document.clean(content)
        if content:
            self._append(content)
        if words.endswith(" "):
            self._space()

    def _space(self) -> None:
        if not self._pending and self._parts:
            self._pending = " "

    def _append(self, content: str) -> None:
        piece = self._pending + content
        self._pending = ""
        self._is_at_cell_start = False
        if self._size + len(piece) > self._longest:
            piece = piece[: self._longest - self._size]
            self.is_cut = True
        self._parts.append(piece)
        self._size += len(piece)


def _is_hidden(node: LexborNode) -> bool:
    if node.tag in _INVISIBLE:
        return True
    attributes = node.attrs
    if "hidden" in attributes or (node.tag == "dialog" and "open" not in attributes):
        return True
    style = attributes.get("style")
    return style is not None and _HIDDEN_STYLE.search(style) is not None


def _flattened(markup: str) -> str:
    """Return the markup without the start tags of elements that lie too deep."""
    exempt = _VOID | _CLOSED_BY_NEXT
    is_html_alone = not _FOREIGN.search(markup)
    if is_html_alone:
        exempt |= _CLOSED_BY_NEXT_IN_HTML
    depth = 0
    kept: list[str] = []
    copied = passed = 0
    for tag in _TAG.finditer(markup):
        if tag.start() < passed:
            continue
        name = tag[2].lower()
        if is_html_alone and not tag[1] and name in _END_OF_CODE:
            # A comparison in a script is no tag.
            end_of_code = _END_OF_CODE[name].search(markup, tag.end())
            passed = end_of_code.end() if end_of_code else len(markup)
        elif name in exempt:
            continue
        elif tag[1]:
            depth = max(0, depth - 1)
        elif depth < _DEPTH_MAX:
            depth += 1
        else:
            kept.append(markup[copied : tag.start()])
            passed = copied = markup.find(">", tag.end()) + 1 or len(markup)
    if not kept:
        return markup
    kept.append(markup[copied:])
    return " ".join(kept)


def _declared_encoding(content: bytes) -> str | None:
    """Return Python's name of the encoding that the file names, if there is such an encoding."""
    start = content[:_PRESCANNED_BYTES]
    found = _META_CHARSET.search(start) or _XML_ENCODING.search(start)
    return (
        None
        if found is None
        else encodings.of_label(found[1].decode("ascii", "ignore"), _ENCODING_OF_LABEL)
    )


def _metadata(tree: LexborHTMLParser, *, encoding: str) -> DocumentMetadata:
    named = _meta(tree)
    title = tree.css_first("title")
    shown = text.clean_line(title.text(), longest=_METADATA_MAX) if title is not None else None
    extra = {"encoding": encoding}
    lang = tree.root.attrs.get("lang") if tree.root is not None else None
    if lang and (clean := text.clean_line(lang, longest=_LANG_MAX)):
        extra["language"] = clean
    return DocumentMetadata(
        title=shown or named.get("og:title"),
        author=named.get("author"),
        subject=named.get("description") or named.get("og:description"),
        keywords=named.get("keywords"),
        creator=named.get("generator"),
        created=_date(named.get("article:published_time") or named.get("dcterms.created")),
        modified=_date(named.get("article:modified_time") or named.get("dcterms.modified")),
        extra=extra,
    )


def _meta(tree: LexborHTMLParser) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in tree.css("meta[content]")[:_META_MAX]:
        name = node.attrs.get("name") or node.attrs.get("property")
        content = text.clean_line(node.attrs.get("content") or "", longest=_METADATA_MAX)
        if name and content:
            found.setdefault(name.lower(), content)
    return found


def _date(value: str | None) -> datetime | None:
    try:
        return None if value is None else datetime.fromisoformat(value)
    except ValueError:
        return None
