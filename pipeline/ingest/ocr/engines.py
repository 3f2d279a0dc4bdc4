"""Which OCR engine this worker has, and whether any worker has one."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sqlalchemy import exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pipeline.ingest.ocr import languages, tesseract
from pipeline.ingest.ocr.engine import OcrEngine
from pipeline.ingest.ocr.rapid import MODULES, RapidOcrEngine
from pipeline.ingest.ocr.tesseract import TesseractEngine
from pipeline.settings import Settings
from schemas.settings import OcrChoiceSettings, OcrEngineName
from schemas.tables.engines import ALIVE_FOR, LiveEngine

RENEW_EVERY: Final = ALIVE_FOR / 4
"""A worker that fails to renew its engine once or twice is still alive."""


class NoEngine(Exception):
    """This worker cannot recognise text; the message says what it lacks."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The engine of a worker; `opened` loads it.

    Attributes:
        name: of the engine.
        languages: its language data for a page whose language is unknown.
        detail: for operators.
    """

    name: OcrEngineName
    languages: tuple[str, ...]
    detail: str


def choose(settings: Settings) -> Choice:
    """Return the engine that the settings ask for, without loading it.

    Raises:
        NoEngine: it is not installed, or none is wanted.
    """
    name = settings.ocr_engine
    if name is OcrEngineName.NONE:
        raise NoEngine("OCR_ENGINE is none")
    if name is not OcrEngineName.RAPIDOCR:
        found = tesseract.installed(settings.tessdata_dir)
        usable = languages.configured(settings.ocr_languages, installed=found)
        if usable:
            detail = f"tesseract with {', '.join(sorted(found))}"
            return Choice(name=OcrEngineName.TESSERACT, languages=usable, detail=detail)
    if name is not OcrEngineName.TESSERACT and all(map(find_spec, MODULES)):
        return Choice(name=OcrEngineName.RAPIDOCR, languages=("eng",), detail="rapidocr")
    raise NoEngine(
        f"{settings.tessdata_dir} has no language data {' or '.join(settings.ocr_languages)} of"
        " Tesseract (Debian: tesseract-ocr-eng)"
        if name is not OcrEngineName.RAPIDOCR
        else "RapidOCR is not installed (extra ocr-rapidocr)"
    )


def opened(name: OcrEngineName, *, data: Path) -> OcrEngine:
    """Load an engine; in the sandbox child, because its native code reads what clients send.

    Args:
        name: of the engine, as chosen.
        data: directory of Tesseract's language data.
    """
    return RapidOcrEngine() if name is OcrEngineName.RAPIDOCR else TesseractEngine(data)


def renew(session: Session, choice: Choice) -> None:
    """Record that a worker with this engine is alive."""
    row = {"name": choice.name, "detail": choice.detail, "seen_at": func.now()}
    session.execute(
        insert(LiveEngine).values(row).on_conflict_do_update(index_elements=["name"], set_=row)
    )


def is_available(session: Session, settings: OcrChoiceSettings) -> bool:
    """Return whether pages are to be recognised, and a worker that can is alive."""
    if settings.ocr_engine is OcrEngineName.NONE:
        return False
    alive = LiveEngine.seen_at > func.now() - ALIVE_FOR
    return bool(session.scalar(select(exists().where(alive))))
