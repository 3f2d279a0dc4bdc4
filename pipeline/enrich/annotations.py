"""What is found on a page and in a document."""

from dataclasses import dataclass
from typing import NamedTuple

import msgspec


class Found(NamedTuple):
    """An entity in the making: its place in a text and its normal form."""

    label: str
    start: int
    end: int
    normal: str


class Entity(msgspec.Struct, frozen=True, array_like=True):
    """A name, date, amount or address.

    Attributes:
        label: its kind: `DATE`, `EMAIL`, `IBAN`, `MONEY`, `PERCENT`, `URL`, or what the trained
            pipeline calls it, such as `PERSON`.
        text: its text on one line.
        normal: normal form, equal for all mentions of the same thing: a date in ISO 8601
            (`2024-05-03`, `2024-05`), an amount with its ISO 4217 code (`1234.56 EUR`), `12.5%`;
            a name in lower case.
        start: offset of its first character in the text of the page.
        end: offset after its last character.
    """

    label: str
    text: str
    normal: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """How many sentences and entities of one page are kept."""

    sentences: int
    entities: int


@dataclass(frozen=True, kw_only=True)
class PageAnnotations:
    """What was found on a page.

    Attributes:
        sentences: start and end of each sentence in the text of the page, in order.
        entities: in order, not overlapping.
        language: ISO 639-1 code; None if the page has too little text or no clear language.
        language_confidence: from 0 to 1; None without a language.
        more_sentences: the page has more sentences than the limit.
        more_entities: the page has more entities than the limit.
    """

    sentences: tuple[tuple[int, int], ...] = ()
    entities: tuple[Entity, ...] = ()
    language: str | None = None
    language_confidence: float | None = None
    more_sentences: bool = False
    more_entities: bool = False


@dataclass(frozen=True, kw_only=True)
class DocumentSummary:
    """What the pages of a document have in common.

    Attributes:
        language: language of most of its text, as on a page.
        language_confidence: mean confidence of the pages in that language, times their share of
            the text that has a language.
        key_phrases: the most telling phrases, best first; at most 10.
    """

    language: str | None = None
    language_confidence: float | None = None
    key_phrases: tuple[str, ...] = ()
