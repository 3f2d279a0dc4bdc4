"""Marked parts of a page's text."""

from enum import StrEnum
from typing import Final


class SpanKind(StrEnum):
    """Why a part of a page's text is marked."""

    HEADER = "header"  # repeated at the top of neighbouring pages
    FOOTER = "footer"
    FORM_FIELD = "form_field"  # the value of a form field
    ANNOTATION = "annotation"  # text written onto the page


RUNNING: Final = frozenset({SpanKind.HEADER, SpanKind.FOOTER})
"""Parts that are in no sentence and in no passage: they would repeat on every page."""

SPAN_KINDS: Final = tuple(SpanKind)
"""The kinds in the order of their numbers in `pages.spans`; append only."""
