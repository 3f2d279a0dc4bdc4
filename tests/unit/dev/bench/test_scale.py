from dev.bench import looks, scale
from dev.bench.scale import Bounds

BOUNDS = Bounds(few=1_000, many=1_000_000, rounds=3)


def test_a_row_has_the_medians_and_their_ratio() -> None:
    section = scale.section({"look": [1.0, 2.0, 9.0]}, {"look": [3.0, 1.0, 2.5]}, extent=BOUNDS)

    (row,) = section.tables[0].rows
    assert row[:4] == ["look", "2.00", "2.50", "1.25"]
    assert section.remarks == ["No ratio is above 1.3."]


def test_a_look_that_costs_more_with_more_rows_is_named() -> None:
    section = scale.section(
        {"even": [1.0], "grows": [1.0]}, {"even": [1.3], "grows": [1.31]}, extent=BOUNDS
    )

    assert section.remarks == ["Above 1.3: grows."]


def test_every_look_has_a_name_of_its_own() -> None:
    names = [*(look.name for look in looks.LOOKS), *(look.name for look in looks.PIPELINE)]

    assert len(set(names)) == len(names)
