"""Strict values in paths: Python's own conversions accept underscores, "+" and other scripts."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from litestar import Request
from litestar.exceptions import NotFoundException

PATTERNS: Final[Mapping[type, re.Pattern[str]]] = MappingProxyType(
    {
        # A route refuses negative numbers itself, with the range that it has.
        int: re.compile(r"[0-9]+|-[1-9][0-9]*"),
        UUID: re.compile(
            r"(?:urn:uuid:)?\{?[0-9A-Fa-f]{8}-?(?:[0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}\}?"
        ),
    }
)


def check(request: Request[Any, Any, Any]) -> None:
    """Check the values in the path of a routed request.

    Raises:
        NotFoundException: a value is not written in ASCII digits; no resource has this path.
    """
    if not request.path_params:
        return
    template = filter(None, request.scope["path_template"].split("/"))
    written = filter(None, request.scope["path"].split("/"))
    for name, value in zip(template, written, strict=True):
        pattern = PATTERNS.get(type(request.path_params.get(name.strip("{}"))))
        if name.startswith("{") and pattern is not None and not pattern.fullmatch(value):
            raise NotFoundException
