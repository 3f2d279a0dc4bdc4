from pathlib import Path

import pytest

from dev.bench import plots
from dev.bench.plots import Bars, Lines

BARS = Bars(
    title="Receiving (higher is better)",
    unit="MiB/s",
    groups=["1 GiB\nchunks of 8 MiB", "1 GiB\nchunks of 1 MiB"],
    series={
        "ours": [[200.0, 210.0, 190.0], [150.0, 140.0, 160.0]],
        "theirs": [[180.0, 181.0, 182.0], [170.0, 100.0, 190.0]],
    },
    ours=("ours",),
)
LINES = Lines(
    title="Memory (flat is good)",
    unit="MiB",
    axis="size",
    points=["64 MiB", "8 GiB"],
    series={"gateway": [100.0, 101.0], "transfer": [150.0, 150.0]},
    ours=("gateway", "transfer"),
)
LARGEST_PLOT = 200_000


@pytest.fixture(params=["bars", "lines"])
def drawn(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return draw(request.param, to=tmp_path / "plot.svg")


def draw(kind: str, *, to: Path) -> Path:
    if kind == "bars":
        plots.bars(BARS, to=to)
    else:
        plots.lines(LINES, to=to)
    return to


def test_a_plot_is_small_and_names_neither_date_nor_machine(drawn: Path, tmp_path: Path) -> None:
    content = drawn.read_text()

    assert len(content) < LARGEST_PLOT
    assert str(tmp_path) not in content
    assert "dc:date" not in content
    assert "dc:creator" not in content


@pytest.mark.parametrize("kind", ["bars", "lines"])
def test_the_same_figures_give_the_same_file(kind: str, tmp_path: Path) -> None:
    first, second = (draw(kind, to=tmp_path / name) for name in ("a.svg", "b.svg"))

    assert first.read_bytes() == second.read_bytes()


def test_only_the_project_has_the_highlight_colour(tmp_path: Path) -> None:
    alone = Bars(title="", unit="", groups=["a", "b"], series={"": [[1.0], [2.0]]}, ours=())

    plots.bars(BARS, to=tmp_path / "with.svg")
    plots.bars(alone, to=tmp_path / "without.svg")

    assert plots.OURS in (tmp_path / "with.svg").read_text()
    assert plots.OURS not in (tmp_path / "without.svg").read_text()


def test_a_label_is_broken_at_its_first_comma() -> None:
    assert plots.two_lines("1 GiB, chunks of 8 MiB, 4 connections") == (
        "1 GiB\nchunks of 8 MiB, 4 connections"
    )
