"""An extractor whose documents are scripts: each line is a page and says what reading it does."""

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final, Never

from pipeline.ingest.extractors.extractor import (
    ExtractedPage,
    Extractor,
    OpenDocument,
    PageImage,
    Structure,
)
from pipeline.ingest.extractors.layout import LayoutLimits, PageLayout
from pipeline.ingest.sandbox.limits import ReadingLimits

MEDIA_TYPE: Final = "application/x-script"


class Script(OpenDocument):
    """An open script; the other engine survives `crash`, but not `always crash`."""

    def __init__(self, lines: list[str], *, is_other: bool) -> None:
        self._lines = lines
        self._is_other = is_other
        self.page_count = len(lines)
        self._do(lines[0].partition("open: ")[2])

    @property
    def warnings(self) -> int:  # type: ignore[override]  # counted by the scripts
        """Asked for at the end of a reading."""
        self._do(self._lines[-1].partition("end: ")[2])
        return 0

    def close(self) -> None:
        self._do(self._lines[-1].partition("close: ")[2])

    def page(self, number: int) -> ExtractedPage:
        line = self._lines[number - 1]
        self._do(line)
        return ExtractedPage(
            number=number, text=line, engine="other script" if self._is_other else "script"
        )

    def image(self, number: int, *, dpi: float, pixels_max: int, grey: bool) -> PageImage:
        del pixels_max, grey
        self._do(self._lines[number - 1])
        return PageImage(width=10, height=20, channels=1, pixels=bytes([255]) * 200, dpi=dpi)

    def layout(self, number: int, *, limits: LayoutLimits) -> PageLayout:
        del limits
        self._do(self._lines[number - 1])
        return PageLayout(number=number)

    def structure(self) -> Structure:
        raise ValueError("a script has no structure")

    def _do(self, command: str) -> None:
        always = command.startswith("always ")
        match command.removeprefix("always ").strip():
            case "crash" if always or not self._is_other:
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exhaust":
                bytearray(1 << 40)
            case "hang" if not self._is_other:
                signal.pause()
            case "spin":
                spin_for_ever()
            case "compute":
                # One long call into C, which no signal handler interrupts.
                hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)
            case "fail":
                raise ValueError("a library's words at <object 0x7f>")


def spin_for_ever() -> Never:
    while True:
        pass


class ScriptExtractor(Extractor):
    """Opens scripts."""

    name: ClassVar[str] = "script"
    media_types: ClassVar[frozenset[str]] = frozenset({MEDIA_TYPE})
    is_other: ClassVar[bool] = False

    @contextmanager
    def open(
        self,
        file: Path,
        *,
        limits: ReadingLimits,  # noqa: ARG002  # a script has none
        password: str | None,  # noqa: ARG002
    ) -> Iterator[OpenDocument]:
        script = Script(file.read_text(encoding="utf-8").splitlines(), is_other=self.is_other)
        yield script
        script.close()

    def other(self) -> Extractor:
        return OtherScriptExtractor()


class OtherScriptExtractor(ScriptExtractor):
    is_other: ClassVar[bool] = True
