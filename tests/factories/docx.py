"""Writes DOCX files part by part."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

_W: Final = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_R: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_MC: Final = "http://schemas.openxmlformats.org/markup-compatibility/2006"
_PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006"
_NAMESPACES: Final = f'xmlns:w="{_W}" xmlns:r="{_R}" xmlns:mc="{_MC}"'

STYLES: Final = """
<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
<w:style w:type="paragraph" w:styleId="Sub"><w:name w:val="Sub"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="Derived"><w:name w:val="Mine"/><w:basedOn w:val="berschrift1"/></w:style>
"""

CORE: Final = f"""<cp:coreProperties xmlns:cp="{_PACKAGE}/metadata/core-properties"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/">
<dc:title>Jahresbericht</dc:title><dc:creator>Jürgen Müller</dc:creator>
<dcterms:created>2024-03-01T08:30:00Z</dcterms:created><cp:lastModifiedBy>Eva</cp:lastModifiedBy>
</cp:coreProperties>"""


def paragraph(text: str, *, style: str | None = None, properties: str = "") -> str:
    chosen = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{chosen}{properties}</w:pPr>{run(text)}</w:p>"


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r>'


def table(*rows: tuple[str, ...]) -> str:
    cells = (
        "<w:tr>" + "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) + "</w:tr>"
        for row in rows
    )
    return f"<w:tbl>{''.join(cells)}</w:tbl>"


def document(body: str) -> str:
    return f"<w:document {_NAMESPACES}><w:body>{body}</w:body></w:document>"


def story(element: str, content: str) -> str:
    """Return a part such as a header; `element` is the name of its root, without a prefix."""
    return f"<w:{element} {_NAMESPACES}>{content}</w:{element}>"


def write_docx(
    file: Path, body: str, *, parts: Mapping[str, str] | None = None, core: str | None = None
) -> Path:
    """Write a document.

    Args:
        file: to be written.
        body: content of the body, as XML.
        parts: further parts of the document by their kind and number, such as `header1`.
        core: XML of the core properties.
    """
    parts = {"styles": story("styles", STYLES)} | dict(parts or {})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        targets = {"officeDocument": "word/document.xml"}
        if core is not None:
            targets["core-properties"] = "docProps/core.xml"
            archive.writestr("docProps/core.xml", core)
        archive.writestr("_rels/.rels", _relationships(targets))
        archive.writestr(
            "word/_rels/document.xml.rels",
            _relationships({name: f"{name}.xml" for name in parts}),
        )
        for name, content in parts.items():
            archive.writestr(f"word/{name}.xml", content)
        archive.writestr("word/document.xml", document(body))
    return file


def _relationships(targets: Mapping[str, str]) -> str:
    each = "".join(
        f'<Relationship Id="r{number}" Type="{_R}/{name.rstrip("0123456789")}" Target="{target}"/>'
        for number, (name, target) in enumerate(targets.items())
    )
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{each}</Relationships>'
