"""What a query looks for in the index: lexemes of PostgreSQL, and conditions on them.

A condition is the text of a `tsquery`. Its lexemes come from PostgreSQL in quotes, so that no text
of a client is ever syntax.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, Protocol

from gateway.search.errors import SearchQueryInvalid
from gateway.search.query import Atom, AtomKind, Group, Query
from schemas.policy.search_words import AS_WRITTEN, CONFIGURATIONS, language_mark

_LEXEME: Final = re.compile(r"'(?:[^']|'')*'")
_DISTANCE: Final = re.compile(r"<(?:-|\d+)>")
_WEIGHT: Final = re.compile(r"(?<='):[AD]")

PREFIX: Final = ":*"
"""Follows a lexeme that is the beginning of words."""

STOP_WORDS_MIN: Final = 2
"""Stop words of one language that make a query one in this language."""

Lexed = Mapping[str, Mapping[Atom, str]]
"""The words of each atom as a `tsquery`, by text search configuration; empty for a stop word."""


class WordShares(Protocol):
    """How frequent lexemes are, over all tenants."""

    def of(self, lexeme: str) -> float:
        """Return the share of passages with a lexeme; 0 for a rare one."""

    def of_prefix(self, prefix: str) -> float:
        """Return the sum of the shares of the lexemes that begin so; at least 0."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One thing that passages should have, in any of its forms.

    Attributes:
        atoms: what the client wrote.
        forms: single lexemes whose positions count for the rank.
        condition: whether a passage has the term.
        alternatives: the same for each of the atoms.
        presence: whether a passage has the words of the term, wherever; every one with the term has.
        sequences: conditions on single words, which follow each other where the term is; for
            highlights.
        is_required: whether a passage without the term is no hit.
        share: the estimated share of passages with the term; 0 if it is rare or unknown. That of a
            prefix is the sum of its words, that of a phrase is that of its rarest word.
    """

    atoms: tuple[Atom, ...]
    forms: tuple[str, ...]
    condition: str
    alternatives: tuple[str, ...]
    presence: str
    sequences: tuple[tuple[str, ...], ...]
    is_required: bool
    share: float

    @property
    def has_counted_forms(self) -> bool:
        """Whether a passage has the term if, and only if, it has one of the forms."""
        return self.condition == _any(self.forms) if self.forms else False


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of a query, and the condition of its excluded words."""

    wanted: tuple[Term, ...]
    excluded: str | None
    excluded_share: float

    @property
    def required(self) -> tuple[Term, ...]:
        return tuple(term for term in self.wanted if term.is_required)

    @property
    def has_conditions(self) -> bool:
        """Whether some passages cannot be hits, whatever their vectors."""
        return bool(self.required) or self.excluded is not None

    @property
    def optional(self) -> tuple[Term, ...]:
        return tuple(term for term in self.wanted if not term.is_required)


def terms_of(query: Query, lexed: Lexed, *, shares: WordShares) -> Terms:
    """Return what to look for.

    Args:
        query: the query.
        lexed: its words in each configuration.
        shares: how frequent lexemes are.

    Raises:
        SearchQueryInvalid: a required phrase, or the whole query, has no word.
    """
    ignored = _stop_words(query, lexed)
    wanted = [
        term
        for group in query.groups
        if group.is_required or group.alternatives[0] not in ignored
        if (term := _term(group, lexed, shares=shares)) is not None
    ]
    if not wanted:
        raise SearchQueryInvalid("there is no word to look for")
    excluded = [condition for atom in query.excluded for condition in _conditions(atom, lexed)]
    return Terms(
        wanted=tuple(wanted),
        excluded=_any(excluded) if excluded else None,
        excluded_share=max((_share(each, shares) for each in excluded), default=0.0),
    )


def _stop_words(query: Query, lexed: Lexed) -> Collection[Atom]:
    """Return the words to ignore: the stop words of the language that has most of them.

    "die" is a stop word of German, and none in "die hard": one alone is no sign of a language. Of a
    query of stop words only, all count.
    """
    words = [
        group.alternatives[0]
        for group in query.groups
        if not group.is_required and group.alternatives[0].kind is AtomKind.WORD
    ]
    by_language = [
        {word for word in words if lexed[AS_WRITTEN].get(word) and not atoms.get(word)}
        for atoms in lexed.values()
    ]
    found = max(by_language, key=len, default=set[Atom]())
    return found if STOP_WORDS_MIN <= len(found) < len(query.groups) else ()


def _term(group: Group, lexed: Lexed, *, shares: WordShares) -> Term | None:
    """Return the term of alternatives; None if an optional word is none for PostgreSQL.

    Raises:
        SearchQueryInvalid: a required one is no word.
    """
    by_atom = [each for atom in group.alternatives if (each := _conditions(atom, lexed))]
    if not by_atom:
        if group.is_required:
            raise SearchQueryInvalid(f'"{group.alternatives[0].text}" is no word')
        return None
    conditions = list(dict.fromkeys(chain.from_iterable(by_atom)))
    return Term(
        atoms=group.alternatives,
        forms=tuple(
            dict.fromkeys(form for atom in group.alternatives for form in _forms(atom, lexed))
        ),
        condition=_any(conditions),
        alternatives=tuple(map(_any, by_atom)),
        presence=_any(list(dict.fromkeys(map(_presence, conditions)))),
        sequences=tuple(
            sequence for atom in group.alternatives if (sequence := _sequence(atom, lexed))
        ),
        is_required=group.is_required,
        share=min(
            1.0, sum(max(_share(each, shares) for each in conditions) for conditions in by_atom)
        ),
    )


def _conditions(atom: Atom, lexed: Lexed) -> list[str]:
    """Return conditions of which a passage with the atom meets one; none if it is no word."""
    as_written = lexed[AS_WRITTEN].get(atom, "")
    if not as_written:
        return []
    match atom.kind:
        case AtomKind.PHRASE:
            return [_exactly(as_written, lexed)]
        case AtomKind.PREFIX:
            if not _LEXEME.fullmatch(as_written):
                raise SearchQueryInvalid(f"{atom.text}* is more than one word")
            return [f"{as_written}{PREFIX}"]
        case AtomKind.WORD:
            return list(dict.fromkeys(form for atoms in lexed.values() if (form := atoms[atom])))


def _exactly(as_written: str, lexed: Lexed) -> str:
    """Return the condition of words as written that follow each other.

    They have weight D. The normal forms, with weight A, would also find other forms of the words, and
    the last of them stands beside the first word as written. Only pages in a language without normal
    forms have the words as written with weight A.
    """
    normal = [code for code, configuration in CONFIGURATIONS.items() if configuration in lexed]
    written = _LEXEME.sub(lambda lexeme: f"{lexeme[0]}:D", as_written)
    without = _LEXEME.sub(lambda lexeme: f"{lexeme[0]}:A", as_written)
    if normal:
        without += f" & !({' | '.join(quoted(language_mark(code)) for code in normal)})"
    return f"({written} | {without})"


def _presence(condition: str) -> str:
    """Return whether a passage has the words of a condition, without positions, weights and marks."""
    if not (_DISTANCE.search(condition) or _WEIGHT.search(condition)):
        return condition
    words = [each for each in _LEXEME.findall(condition) if not each.startswith("'#")]
    return f"({' & '.join(dict.fromkeys(words))})" if len(set(words)) > 1 else words[0]


def _forms(atom: Atom, lexed: Lexed) -> list[str]:
    """Return the lexemes whose number in a passage counts for its rank."""
    as_written = lexed[AS_WRITTEN].get(atom, "")
    if atom.kind is AtomKind.WORD:
        return [text for atoms in lexed.values() if _LEXEME.fullmatch(text := atoms[atom])]
    if not _LEXEME.fullmatch(as_written):
        return []
    return [as_written if atom.kind is AtomKind.PHRASE else f"{as_written}{PREFIX}"]


def _sequence(atom: Atom, lexed: Lexed) -> tuple[str, ...]:
    """Return the conditions on the words of an atom."""
    as_written = lexed[AS_WRITTEN].get(atom, "")
    match atom.kind:
        case AtomKind.PHRASE:
            return tuple(_LEXEME.findall(as_written))
        case AtomKind.PREFIX:
            return (f"{as_written}{PREFIX}",)
        case AtomKind.WORD:
            forms = _conditions(atom, lexed)
            return (_any(forms),) if forms else ()


def lexemes_of(condition: str) -> list[str]:
    """Return the lexemes of a condition, without quotes."""
    return [each[1:-1].replace("''", "'") for each in _LEXEME.findall(condition)]


def _share(condition: str, shares: WordShares) -> float:
    """Return the estimated share of passages that meet the condition of one form."""
    if PREFIX in condition:
        return min(1.0, sum(map(shares.of_prefix, lexemes_of(condition))))
    return min(map(shares.of, lexemes_of(condition)))


def rarest(terms: Terms, *, limit: int) -> Terms:
    """Return the terms with the rarest of the optional ones."""
    optional = sorted(terms.optional, key=lambda term: term.share)
    dropped = frozenset(optional[max(0, limit - len(terms.required)) :])
    return replace(terms, wanted=tuple(term for term in terms.wanted if term not in dropped))


def quoted(lexeme: str) -> str:
    """Return a lexeme as a `tsquery`."""
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _any(conditions: Collection[str]) -> str:
    return f"({' | '.join(conditions)})" if len(conditions) > 1 else next(iter(conditions))
