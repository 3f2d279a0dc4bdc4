"""Decides between two opinions on the text of a page, and what the page comes to; pure."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from pipeline.ingest.extractors.pdf.signs import Sign, Signs, once, signs_of
from schemas.outcomes import Outcome

# The other engine orders and spaces the text less well, so it has to be clearly better.
_BETTER_BY: Final = 0.05
_LONGER_BY: Final = 1.3
_AS_LONG: Final = 0.5
# A Chinese character says as much as two or three letters.
_LETTERS_PER_CHARACTER: Final = 2
_SAMPLE: Final = 1_000
LITTLE_TEXT: Final = 50
"""Characters; a page with fewer of them may be a scan with a stamp."""
_SCAN_SHARE: Final = 0.5
# A smaller image on a page without text is a logo or an ornament.
_IMAGE_SHARE: Final = 0.05
# Ornaments have fewer shapes, a line of text has more.
_OUTLINES_MIN: Final = 20


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a page shows.

    Attributes:
        objects: texts, paths and images; None if they were not counted.
        texts: objects that show text.
        image_share: part of the page that images cover, 0 to 1.
        outlines: filled shapes that may be letters.
    """

    objects: int | None = None
    texts: int = 0
    image_share: float = 0.0
    outlines: int = 0


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """The text of a page as an engine yields it.

    Attributes:
        raw: before it is cleaned.
        text: after it is cleaned.
        codes: what the engine yields where it has no map; spaces for the rest.
        doubted: those of the codes that are in the text.
        may_be_cut: whether the engine may have dropped the end of the text.
    """

    raw: str
    text: str
    codes: str = ""
    doubted: str = ""
    may_be_cut: bool = False

    @cached_property
    def signs(self) -> Signs:
        return signs_of(self.text, raw=self.raw, doubted=self.doubted)

    @property
    def signs_of_one_print(self) -> Signs:
        """The signs of the text with overprinted letters once."""
        return signs_of(once(self.text), raw=once(self.raw), doubted=once(self.doubted))

    def with_doubts_of(self, first: "Opinion") -> "Opinion":
        """Return this opinion with the characters in doubt that the first one doubts, too.

        Without a map both engines yield the codes of the glyphs; only one of them says so.
        """
        shared = Counter(self.raw) & Counter(first.codes.replace(" ", ""))
        return replace(self, doubted="".join(shared.elements()))


def is_better(second: Opinion, first: Opinion) -> bool:
    """Return whether the second opinion is the better text."""
    one, other = first.signs_of_one_print, second.signs_of_one_print
    as_long, longer = _AS_LONG, _LONGER_BY
    if _is_east_asian(first.text) and not _is_east_asian(second.text):
        as_long, longer = as_long * _LETTERS_PER_CHARACTER, longer * _LETTERS_PER_CHARACTER
    if other.quality > one.quality + _BETTER_BY:
        return other.readable > as_long * one.readable
    return other.quality >= one.quality and other.readable > longer * one.readable


def _is_east_asian(text: str) -> bool:
    return 2 * sum(each > "\u2e7f" for each in text[:_SAMPLE]) > len(text[:_SAMPLE])


def outcome_of(signs: Signs, shown: Shown) -> tuple[Outcome, str]:
    """Return the outcome of a page that was read, and a sentence for clients about it."""
    if signs.is_garbage or signs.is_incomplete:
        return Outcome.NEEDS_OCR, "The fonts of the page do not say which characters they show."
    if signs.characters < LITTLE_TEXT and shown.image_share >= _SCAN_SHARE:
        return Outcome.NEEDS_OCR, "The page is an image with little or no text."
    if signs.characters == 0:
        if shown.image_share >= _IMAGE_SHARE:
            return Outcome.NEEDS_OCR, "The page has an image and no text."
        if shown.outlines >= _OUTLINES_MIN:
            return Outcome.NEEDS_OCR, "The page has shapes that may be letters, and no text."
        return Outcome.NO_TEXT, "The page has no text."
    return Outcome.COMPLETE, ""


def limit_reached(opinion: Opinion, *, characters_max: int) -> tuple[Outcome, str]:
    """Return the limit that cut the text of a page, and a sentence about it, or `COMPLETE`."""
    if len(opinion.raw) > characters_max:
        return (
            Outcome.LIMIT_PAGE_TEXT,
            f"The page has more than {characters_max} characters; the rest is left out.",
        )
    if opinion.may_be_cut:
        return (
            Outcome.LIMIT_PAGE_TEXT,
            "The page has more text than can be read; the rest is left out.",
        )
    return Outcome.COMPLETE, ""


def sign_of(opinion: Opinion, shown: Shown) -> Sign | None:
    """Return the sign that asks for the other engine; None if the text looks right."""
    if opinion.may_be_cut:
        return Sign.CUT
    signs = opinion.signs
    if signs.characters == 0 and shown.texts:
        return Sign.NOTHING_READ
    return next((sign for sign in Sign if sign in signs.found), None)
