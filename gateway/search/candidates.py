"""Which passages are compared: those that have the rare terms of a query.

The index answers a condition as a whole: its cost follows the passages that meet the condition, also if
only some of them are read. A common word selects nothing: it only counts in the rank of passages that
have a rarer one. Where even the rarest word is common, it is cheaper to look for it in the newest
passages until enough of them have it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Final

from gateway.search.terms import PREFIX, Term, Terms, quoted

CHECK_COST: Final = 10
"""What a check of a passage costs, in entries of the index."""

WALK_COST: Final = 3
"""What it costs to read a passage after its neighbour, in entries of the index."""

WALK_SPARE: Final = 3
WALK_MIN: Final = 5_000
WALK_MAX: Final = 20_000
"""The newest passages are read up to so many times the expected number, within these limits.

A passage takes about 1.5 µs.
"""

PAIR: Final = 2
PAIRED: Final = 5
"""Rare terms of which passages with two come before passages with one."""


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A look at the newest passages of the tenant.

    Attributes:
        condition: what is checked on each of them.
        read_max: most documents, and most of their passages, that are read.
    """

    condition: str
    read_max: int


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What selects candidates.

    Attributes:
        conditions: those of the best candidates first.
        decisive: the terms of which every passage is selected, so that their number is known if all
            candidates were read.
        walk: is cheaper than the conditions if it finds enough passages.
    """

    conditions: tuple[str, ...]
    decisive: frozenset[Term] = frozenset()
    walk: Walk | None = None


@dataclass(frozen=True, kw_only=True)
class Base:
    """What every hit has, by its words and marks.

    Attributes:
        indexed: the condition that the index answers; empty for none.
        checked: what is checked on each passage that the index finds; None for nothing.
        terms: those of the query.
        share: the estimated share of the tenant's passages that meet both.
    """

    indexed: str
    checked: str | None
    terms: Terms
    share: float


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Estimated numbers of passages.

    Attributes:
        of_tenant: those of the tenant.
        of_all: those of all tenants.
        rare: the share of a word that is too rare to be counted, at most.
    """

    of_tenant: int
    of_all: int
    rare: float


def base_of(terms: Terms, *, scope: str, scope_share: float, sizes: Sizes) -> Base:
    """Return what every hit has.

    The index finds the passages with the words of a phrase; their order is checked. For a prefix the
    index reads the passages of all tenants with any word that begins so. If these are many more than the
    passages of the tenant, the latter are checked instead. So are excluded words that few passages have.

    Args:
        terms: the terms of the query.
        scope: the condition of the tenant and of the filters that are marks; empty for none.
        scope_share: the estimated share of the tenant's passages that have the marks.
        sizes: numbers of passages.
    """
    indexed, checked = [scope], []
    share = scope_share
    for term in terms.required:
        # How many passages have the words of a phrase in their order is unknown.
        share *= term.share if term.presence == term.condition else 0
        if PREFIX in term.condition and term.share * sizes.of_all > CHECK_COST * sizes.of_tenant:
            checked.append(term.condition)
        else:
            indexed.append(term.presence)
            if term.presence != term.condition:
                checked.append(term.condition)
    if terms.excluded is not None:
        share *= 1 - terms.excluded_share
        (indexed if terms.excluded_share > 1 / 2 else checked).append(f"!({terms.excluded})")
    return Base(indexed=all_of(indexed), checked=all_of(checked) or None, terms=terms, share=share)


def selection_of(base: Base, *, sizes: Sizes, limit: int) -> Selection:
    """Return what selects about `limit` candidates or fewer.

    Args:
        base: what every candidate has.
        sizes: numbers of passages.
        limit: candidates that are read.
    """
    terms = base.terms
    decisive = _decisive(terms, sizes=sizes, limit=limit)
    if terms.required:
        share = min(max(term.share, sizes.rare) for term in terms.required)
    else:
        share = sum(max(term.share, sizes.rare) for term in decisive)
    if share * sizes.of_tenant > limit:
        return crowded_selection_of(base, sizes=sizes, limit=limit)
    if terms.required:
        return Selection(conditions=(base.indexed,))
    return Selection(
        conditions=(all_of([base.indexed, any_of([term.condition for term in decisive])]),),
        decisive=frozenset(decisive),
    )


def crowded_selection_of(base: Base, *, sizes: Sizes, limit: int) -> Selection:
    """Return what selects the best candidates first, where more passages have the terms than are read."""
    tiers = _tiers(base.terms, _decisive(base.terms, sizes=sizes, limit=limit))
    return Selection(
        conditions=tuple(all_of([base.indexed, tier]) for tier in tiers),
        walk=_walk(base, sizes=sizes, limit=limit),
    )


def _decisive(terms: Terms, *, sizes: Sizes, limit: int) -> list[Term]:
    """Return the rarest of the optional terms, which together about `limit` passages have."""
    decisive: list[Term] = []
    expected = 0.0
    for term in sorted(terms.optional, key=lambda term: term.share):
        expected += term.share * sizes.of_tenant
        if decisive and expected > limit:
            break
        decisive.append(term)
    return decisive


def _tiers(terms: Terms, decisive: Sequence[Term]) -> list[str]:
    """Return conditions for what a base has beside; the last may be empty, which all passages meet."""
    optional = [term.condition for term in terms.optional]
    rare = [term.condition for term in decisive]
    common = [condition for condition in optional if condition not in rare]
    every = [all_of(optional)] if len(optional) > 1 else []
    if terms.required:
        alternatives = [each for term in terms.required for each in term.alternatives]
        if len(alternatives) > len(terms.required) and not (
            optional or PREFIX in str(alternatives)
        ):
            every = [all_of(alternatives)]
        return [*every, *([any_of(optional)] if optional else []), ""]
    if len(optional) <= PAIR:
        return [*every, any_of(rare)]
    pairs = [f"({all_of(pair)})" for pair in combinations(rare[:PAIRED], PAIR)]
    return [*every, any_of(pairs) if pairs else all_of([*rare, any_of(common)]), any_of(rare)]


def _walk(base: Base, *, sizes: Sizes, limit: int) -> Walk | None:
    """Return the look at the newest passages; None if the index is cheaper."""
    terms = base.terms.wanted
    share = base.share * prod(term.share for term in base.terms.optional)
    prefixes = sum(term.share for term in terms if PREFIX in term.condition) * sizes.of_all
    entries = max(
        min(sizes.of_tenant, *(term.share * sizes.of_all for term in terms)),
        # The index lists all passages with a prefix, or those of the tenant are checked.
        min(prefixes, CHECK_COST * sizes.of_tenant),
    )
    read = limit / share if share else float("inf")
    if read > WALK_MAX or WALK_COST * read > entries:
        return None
    return Walk(
        condition=all_of(
            [base.indexed, base.checked, *(term.condition for term in base.terms.optional)]
        ),
        read_max=min(WALK_MAX, max(WALK_MIN, round(WALK_SPARE * read))),
    )


def scope_of(marks: Sequence[str]) -> str:
    """Return the condition that a passage has all of these marks."""
    return all_of(map(quoted, marks))


def all_of(conditions: Iterable[str | None]) -> str:
    """Return the condition that a passage meets all of these that are not empty."""
    return " & ".join(filter(None, conditions))


def any_of(conditions: Sequence[str]) -> str:
    """Return the condition that a passage meets at least one of these."""
    return f"({' | '.join(conditions)})" if len(conditions) > 1 else conditions[0]
