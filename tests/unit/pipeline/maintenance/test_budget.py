from datetime import timedelta
from itertools import count

from pipeline.maintenance.exclusive import Budget


def test_what_fits_is_done_in_batches() -> None:
    budget = Budget.of(timedelta(minutes=1))

    assert list(budget.batches(range(5), of=2)) == [[0, 1], [2, 3], [4]]
    assert not budget.is_spent


def test_a_spent_budget_takes_nothing_more() -> None:
    budget = Budget.of(timedelta(0))

    assert budget.is_spent
    assert list(budget.batches(range(5), of=2)) == []


def test_an_endless_listing_ends_with_the_budget_and_is_never_held_whole() -> None:
    budget = Budget.of(timedelta(milliseconds=20))
    taken = count()

    batches = sum(1 for _ in budget.batches(taken, of=10))

    assert budget.is_spent
    assert next(taken) == batches * 10
