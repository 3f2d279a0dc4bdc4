"""Paths in this checkout of the project."""

import sys
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PROGRAMS: Final = Path(sys.executable).parent
"""The programs of the running environment, such as `python`, `alembic` and `waybill`."""
SWIFT_PROGRAMS: Final = CHECKOUT / "var" / "swift-venv" / "bin"
RCLONE: Final = PROGRAMS / "rclone"
TESSDATA: Final = CHECKOUT / "var" / "tessdata"
"""The language data of Tesseract."""
