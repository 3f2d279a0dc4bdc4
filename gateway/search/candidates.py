"""Which passages are compared: those that have the rare terms of a query.

The index answers a condition as a whole, so its cost follows the passages that meet it. A common
word selects nothing: it only counts in the rank of passages that have a rarer one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.search.terms import PREFIX, Term, Terms, quoted

CHECK_COST: Final = 10
"""What a check of a passage costs, in entries of the index."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Conditions that select candidates.

    Attributes:
        conditions: the best candidates first; none meets two conditions.
        decisive: the terms of which every passage is selected, so that their number is known if all
            candidates were read.
    """

    conditions: tuple[str, ...]
    decisive: frozenset[Term] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Base:
    """What every hit has, by its words and marks.

    Attributes:
        indexed: the condition that the index answers.
        checked: what is checked on each passage that the index finds; None for nothing.
        terms: those of the query.
    """

    indexed: str
    checked: str | None
    terms: Terms


def base_of(terms: Terms, *, scope: str, passages: int, passages_of_all: int) -> Base:
    """Return what every hit has.

    For a prefix the index reads the passages of all tenants with any word that begins so. If these are
    many more than the passages of the tenant, the latter are checked instead.

    Args:
        terms: the terms of the query.
        scope: the condition of the tenant and of the filters that are marks.
        passages: the estimated number of the tenant's passages.
        passages_of_all: that of all tenants.
    """
    shares = {term.condition: term.share for term in terms.required}
    if terms.excluded is not None:
        shares[f"!({terms.excluded})"] = terms.excluded_share
    parts = list(shares)
    checked = [
        part
        for part in parts
        if PREFIX in part and shares[part] * passages_of_all > CHECK_COST * passages
    ]
    return Base(
        indexed=" & ".join([scope, *(part for part in parts if part not in checked)]),
        checked=" & ".join(checked) or None,
        terms=terms,
    )


def selection_of(base: Base, *, passages: int, limit: int) -> Selection:
    """Return what selects about `limit` candidates or fewer.

    Args:
        base: what every candidate has.
        passages: the estimated number of the tenant's passages.
        limit: candidates that are read.
    """
    terms = base.terms
    if terms.required:
        return Selection(conditions=(base.indexed,))
    decisive: list[Term] = []
    expected = 0.0
    for term in sorted(terms.optional, key=lambda term: term.share):
        expected += term.share * passages
        if decisive and expected > limit:
            break
        decisive.append(term)
    if len(decisive) == 1 < len(terms.optional) and decisive[0].share * passages > limit:
        return crowded_selection_of(base)
    return Selection(
        conditions=(f"{base.indexed} & ({_any(decisive)})",),
        decisive=frozenset(decisive),
    )


def crowded_selection_of(base: Base) -> Selection:
    """Return what selects the best candidates first, for terms that more passages have than are read."""
    terms, indexed = base.terms, base.indexed
    optional = sorted(terms.optional, key=lambda term: term.share)
    if terms.required:
        if not optional:
            return Selection(conditions=(indexed,))
        some = _any(optional)
        return Selection(conditions=(f"{indexed} & ({some})", f"{indexed} & !({some})"))
    rarest, others = optional[0].condition, optional[1:]
    if not others:
        return Selection(conditions=(f"{indexed} & {rarest}",))
    every = " & ".join(term.condition for term in others)
    tiers = [f"{indexed} & {rarest} & {every}"]
    if len(others) > 1:
        tiers.append(f"{indexed} & {rarest} & ({_any(others)}) & !({every})")
    tiers.append(f"{indexed} & {rarest} & !({_any(others)})")
    return Selection(conditions=tuple(tiers))


def scope_of(marks: Sequence[str]) -> str:
    """Return the condition that a passage has all of these marks."""
    return " & ".join(map(quoted, marks))


def _any(terms: Sequence[Term]) -> str:
    return " | ".join(term.condition for term in terms)
