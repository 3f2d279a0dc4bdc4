import pytest

from dev.bench import lanes
from dev.bench.figures import Spread
from dev.bench.lanes import Extent

EXTENT = Extent(heavy=3, heavy_pages=10, papers=2)


@pytest.mark.parametrize(("worst", "told"), [(2.0, "within"), (2.001, "above")])
def test_a_paper_that_is_described_too_late_is_named(worst: float, told: str) -> None:
    section = lanes.section(Spread.of([0.1]), Spread.of([0.2, worst]), extent=EXTENT)

    assert section.tables[0].rows[1][0] == "beside heavy documents"
    assert f"is {told} the goal of 2 s" in section.remarks[0]
