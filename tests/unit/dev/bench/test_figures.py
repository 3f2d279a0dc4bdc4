import pytest

from dev.bench.figures import Ratio, Spread, starting_orders


def test_a_spread_lies_within_the_measured_values() -> None:
    spread = Spread.of([4.0, 1.0, 3.0, 2.0])

    assert spread.count == 4
    assert spread.p50 == 2.5
    assert spread.least == 1.0
    assert spread.p50 <= spread.p95 <= spread.worst == 4.0


def test_the_spread_of_one_sample_is_that_sample() -> None:
    assert Spread.of([7.0]) == Spread(count=1, p50=7.0, p95=7.0, p99=7.0, least=7.0, worst=7.0)


def test_a_ratio_compares_round_by_round() -> None:
    # The second round was slow for both, which would distort a ratio of totals.
    ratio = Ratio.between([200.0, 20.0, 300.0], [100.0, 20.0, 100.0])

    assert ratio == Ratio(median=2.0, least=1.0, most=3.0)
    assert str(ratio) == "2.00 (1.00-3.00)"


def test_different_numbers_of_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Ratio.between([1.0, 2.0], [1.0])


def test_the_first_competitor_rotates() -> None:
    orders = list(starting_orders(["a", "b", "c"], rounds=4))

    assert [order[0] for order in orders] == ["a", "b", "c", "a"]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
