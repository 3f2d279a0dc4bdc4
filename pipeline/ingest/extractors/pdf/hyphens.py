"""Words that are divided at the end of a line."""

import re
from typing import Final

_HYPHENS: Final = "-\u2010\u00ad"

_HEAD: Final = re.compile(r"\S+$")
_TAIL: Final = re.compile(r"^\S+")
_LETTERS_AT_END: Final = re.compile(r"[^\W\d_]+$")
_LETTERS_AT_START: Final = re.compile(r"^[^\W\d_]+")
_ADDRESS: Final = re.compile(r"[/@\\]|www\.")
# "Vor- und Nachteile", "two- or threefold": the hyphen ends a word that is left out.
_CONJUNCTIONS: Final = frozenset({"und", "oder", "bzw", "and", "or"})
# First parts of compounds that keep their hyphen, and that no hyphenation leaves of another word.
_FIRST_PARTS: Final = frozenset({"well", "self", "half", "quasi", "two", "three"})


def is_divided(head: str, tail: str) -> bool:
    """Whether a word is divided between a line that ends with a hyphen and the next line."""
    if head[-1:] not in _HYPHENS or not head:
        return False
    first, second = _LETTERS_AT_END.search(head[:-1]), _LETTERS_AT_START.search(tail)
    # One letter before the hyphen is a mark or an item, such as a grade.
    return (
        first is not None
        and second is not None
        and len(first[0]) > 1
        and first[0][-1].islower()
        and second[0][0].islower()
    )


def join(head: str, tail: str, *, page: str) -> tuple[str, str]:
    """Move the rest of a divided word to the line in which the word begins.

    Args:
        head: the line, without the hyphen.
        tail: the next line.
        page: text in which a word may stand undivided, in lower case.

    Returns:
        Both lines; the second is empty if the word was all of it.
    """
    before, after = _HEAD.search(head), _TAIL.search(tail)
    if before is None or after is None:
        return head + "-", tail
    rest = tail[after.end() :].lstrip()
    if after[0].strip(".,;:").lower() in _CONJUNCTIONS:
        return f"{head}-", tail
    hyphen = "-" if _keeps_its_hyphen(before[0], after[0], page=page) else ""
    return f"{head}{hyphen}{after[0]}", rest


def _keeps_its_hyphen(before: str, after: str, *, page: str) -> bool:
    first, second = _LETTERS_AT_END.search(before), _LETTERS_AT_START.search(after)
    if first is None or second is None or _ADDRESS.search(before):
        return True
    # "Jean-Paul", "US-based", "state-of-the-art"; a word in capitals may be divided.
    capitals = first[0].isupper(), second[0][0].isupper()
    if capitals in {(False, True), (True, False)} or "-" in before or "-" in after[:-1]:
        return True
    one, other = first[0].lower(), second[0].lower()
    if one + other in page:
        return False
    return one in _FIRST_PARTS or f"{one}-{other}" in page
