from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.orm import Mapped, mapped_column

from schemas.tables.base import Base

ALIVE_FOR: Final = timedelta(minutes=2)
"""Time after which an engine that no worker renewed counts as gone."""


class LiveEngine(Base):
    """An OCR engine that workers have; each renews the row while it consumes.

    Attributes:
        name: such as `tesseract`.
        detail: its version and languages, for operators.
        seen_at: when a worker renewed it last.
    """

    __tablename__ = "engines"

    name: Mapped[str] = mapped_column(primary_key=True)
    detail: Mapped[str]
    seen_at: Mapped[datetime]
