"""The query language of searches: words, phrases, prefixes, alternatives and excluded words."""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.search.errors import SearchQueryInvalid

LENGTH_MAX: Final = 512
"""Characters of a query."""

PREFIX_MIN: Final = 3
"""Characters of a prefix: a shorter one stands for a large part of all words."""

OPERANDS_MAX: Final = 32
"""Phrases, prefixes, alternatives and excluded words of a query; each costs a look-up of its own."""

# A hyphen between two words is a dash, not a minus.
_TOKEN: Final = re.compile(r"""(?P<minus>-(?=\S))?(?:"(?P<phrase>[^"]*)"|(?P<word>[^\s"]+))""")

_QUOTES: Final = str.maketrans(dict.fromkeys("“”„‟«»\N{FULLWIDTH QUOTATION MARK}", '"'))


class AtomKind(StrEnum):
    WORD = "word"
    PHRASE = "phrase"
    PREFIX = "prefix"


@dataclass(frozen=True, kw_only=True)
class Atom:
    """A word, the words of a phrase, or the beginning of a word."""

    kind: AtomKind
    text: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Alternatives of which a passage has at least one; mostly there is only one.

    Attributes:
        is_required: whether a passage without them is no hit; otherwise it has a lower rank.
    """

    alternatives: tuple[Atom, ...]
    is_required: bool


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query as it was written."""

    groups: tuple[Group, ...]
    excluded: tuple[Atom, ...] = ()

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """Every word, phrase and prefix once, in their order."""
        wanted = (atom for group in self.groups for atom in group.alternatives)
        return tuple(dict.fromkeys((*wanted, *self.excluded)))

    @property
    def has_operators(self) -> bool:
        """Whether the query says more than a list of words."""
        return bool(self.excluded) or any(
            group.is_required or group.alternatives[0].kind is not AtomKind.WORD
            for group in self.groups
        )

    @property
    def text(self) -> str:
        """The wanted words without operators."""
        return " ".join(atom.text for group in self.groups for atom in group.alternatives)


def parse(text: str) -> Query:
    """Return the query that a text states.

    `"…"` is a phrase, `word*` a prefix, `-word` and `-"…"` exclude. `OR` between two gives
    alternatives; `AND` between two requires both. Phrases, prefixes and alternatives are required;
    of plain words a passage should have as many as possible.

    Raises:
        SearchQueryInvalid: there is no word to look for, or an operator lacks an operand.
    """
    text = text.translate(_QUOTES)
    if text.count('"') % 2:
        raise SearchQueryInvalid("a quotation mark is not closed")
    reader = _Reader()
    for token in _TOKEN.finditer(text):
        if token["word"] in {"OR", "AND"} and not token["minus"]:
            reader.operator(token["word"])
        elif (atom := _atom(token)) is not None:
            reader.operand(atom, is_excluded=token["minus"] is not None)
    return reader.query()


class _Reader:
    """Puts operands and operators together."""

    def __init__(self) -> None:
        self._groups: list[list[Atom]] = []
        self._required: set[int] = set()
        self._excluded: list[Atom] = []
        self._operator: str | None = None
        self._may_join = False

    def operator(self, name: str) -> None:
        if self._operator is not None or not self._may_join:
            raise SearchQueryInvalid(
                f'{name} stands between two words; write "{name}" for the word'
            )
        self._operator = name

    def operand(self, atom: Atom, *, is_excluded: bool) -> None:
        if is_excluded:
            if self._operator is not None:
                raise SearchQueryInvalid(f"{self._operator} is followed by an excluded word")
            self._excluded.append(atom)
            self._may_join = False
            return
        if self._operator == "OR":
            self._groups[-1].append(atom)
            self._required.add(len(self._groups) - 1)
        else:
            self._groups.append([atom])
            if self._operator == "AND":
                self._required |= {len(self._groups) - 2, len(self._groups) - 1}
            if atom.kind is not AtomKind.WORD:
                self._required.add(len(self._groups) - 1)
        self._operator = None
        self._may_join = True

    def query(self) -> Query:
        if self._operator is not None:
            raise SearchQueryInvalid(f"{self._operator} has no word after it")
        if not self._groups:
            raise SearchQueryInvalid(
                "there are only excluded words: name a word to look for"
                if self._excluded
                else "there is no word to look for"
            )
        groups = dict.fromkeys(
            Group(
                alternatives=tuple(dict.fromkeys(alternatives)), is_required=place in self._required
            )
            for place, alternatives in enumerate(self._groups)
        )
        operands = sum(len(each.alternatives) for each in groups if each.is_required)
        if operands + len(self._excluded) > OPERANDS_MAX:
            raise SearchQueryInvalid(
                f"there are more than {OPERANDS_MAX} phrases, prefixes, alternatives, required and"
                " excluded words"
            )
        return Query(groups=tuple(groups), excluded=tuple(dict.fromkeys(self._excluded)))


def _atom(token: re.Match[str]) -> Atom | None:
    """Return the operand that a token is; None for punctuation."""
    if token["phrase"] is not None:
        words = " ".join(token["phrase"].split())
        return Atom(kind=AtomKind.PHRASE, text=words) if _has_word(words) else None
    word = token["word"]
    if not _has_word(word):
        return None
    # Brackets and the like may enclose a word with its star.
    bare = word.strip("()[]{},;:.!?'")
    if "*" not in bare:
        return Atom(kind=AtomKind.WORD, text=word)
    prefix = bare.removesuffix("*")
    if "*" in prefix:
        raise SearchQueryInvalid("`*` stands at the end of a word, once")
    if not all(unicodedata.category(each)[0] in "LMN" for each in prefix):
        raise SearchQueryInvalid("the word before `*` consists of letters and digits")
    if len(prefix) < PREFIX_MIN:
        raise SearchQueryInvalid(f"at least {PREFIX_MIN} letters or digits stand before `*`")
    return Atom(kind=AtomKind.PREFIX, text=prefix)


def _has_word(text: str) -> bool:
    return any(map(str.isalnum, text))
