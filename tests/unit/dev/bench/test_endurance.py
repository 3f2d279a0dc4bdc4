from dev.bench import endurance
from dev.bench.endurance import Extent, Resident

EXTENT = Extent(documents=(500, 10_000), texts=3)


def resident(lasting: float) -> Resident:
    return Resident(lasting=lasting, largest=lasting / 3, reader=None)


def test_a_row_has_the_growth_since_the_first_measurement() -> None:
    section = endurance.section({500: resident(600), 10_000: resident(603)}, extent=EXTENT)

    assert section.tables[0].rows[1] == [
        "10,000",
        "603.0 MiB",
        "+3.0 MiB",
        "201.0 MiB",
        "+1.0 MiB",
        "none",
    ]
    assert "+3.0 MiB, within the goal of 50 MiB" in section.remarks[0]


def test_a_worker_that_grows_too_much_is_named() -> None:
    section = endurance.section(
        {500: resident(600), 5_000: resident(650.1), 10_000: resident(610)}, extent=EXTENT
    )

    assert "+50.1 MiB, above the goal" in section.remarks[0]
