from datetime import timedelta
from itertools import count

from pipeline.maintenance.exclusive import Budget


def test_a_budget_yields_every_item_in_batches() -> None:
    budget = Budget.of(timedelta(minutes=1))

    assert list(budget.batches(range(5), size=2)) == [[0, 1], [2, 3], [4]]
    assert not budget.is_spent


def test_a_spent_budget_yields_nothing() -> None:
    budget = Budget.of(timedelta(0))

    assert budget.is_spent
    assert list(budget.batches(range(5), size=2)) == []


def test_an_endless_listing_ends_with_the_budget() -> None:
    budget = Budget.of(timedelta(milliseconds=20))
    taken = count()

    batches = sum(1 for _ in budget.batches(taken, size=10))

    assert budget.is_spent
    assert next(taken) == batches * 10
