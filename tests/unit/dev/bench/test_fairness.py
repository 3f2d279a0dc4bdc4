from pathlib import Path

from dev.bench import fairness
from dev.bench.fairness import Bounds, Result, Times

BOUNDS = Bounds(crowd=10_000, rounds=3)


def times(*total: float) -> Times:
    return Times(total=[*total], waited=[10.0], transfer=[20.0])


def test_a_row_has_the_ratios_of_the_medians_and_of_the_percentiles() -> None:
    result = Result(name="a crowd", alone=times(90, 100, 110), beside=times(100, 250, 327))

    section = fairness.section([result], extent=BOUNDS)

    (row,) = section.tables[0].rows
    assert row == ["a crowd", "100", "250", "2.50", "109", "319", "2.93"]
    assert section.remarks == ["No ratio of the medians is above 3."]


def test_a_crowd_that_delays_an_upload_too_much_is_named() -> None:
    results = [
        Result(name="polite", alone=times(100), beside=times(300)),
        Result(name="pushing", alone=times(100), beside=times(301)),
    ]

    section = fairness.section(results, extent=BOUNDS)

    assert section.remarks == ["Above 3: pushing."]


def test_every_situation_has_a_name_of_its_own() -> None:
    names = [
        situation.name for situation in fairness.situations(crowd=1, staging_dir=Path("staging"))
    ]

    assert len(set(names)) == len(names) == 3
