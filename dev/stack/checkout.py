"""Where this checkout of the project is."""

import sys
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PROGRAMS: Final = Path(sys.executable).parent
"""Holds ``python``, ``celery`` and ``alembic`` of the running environment."""
SWIFT_PROGRAMS: Final = CHECKOUT / "var" / "swift-venv" / "bin"
RCLONE: Final = PROGRAMS / "rclone"
