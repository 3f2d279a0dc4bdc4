"""The plots of the documentation, in one style."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS: Final = "#0b6e4f"
PEERS: Final = ("#9aa5b1", "#cbd2d9", "#616e7c", "#e4c590")
STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 14,
    # The same figures produce the same file.
    "svg.hashsalt": "waybill",
}
INCHES: Final = (8.6, 3.8)
FORMATS: Final = {".svg": {"Date": None, "Creator": None}, ".png": {"Software": None}}
"""Removes the date and the program from each format's metadata."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Groups of bars; each bar is the median of some values, with a line over their range."""

    title: str
    unit: str
    groups: Sequence[str]
    series: Mapping[str, Sequence[Sequence[float]]]
    """By name, for each group the values of all rounds."""
    ours: Collection[str]
    """The series in our colour; with a single series, the groups."""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Lines over the same points."""

    title: str
    unit: str
    axis: str
    points: Sequence[str]
    series: Mapping[str, Sequence[float]]
    ours: Collection[str]


def two_lines(label: str) -> str:
    """Break a label at its first comma, because labels stand side by side."""
    return label.replace(", ", "\n", 1)


def bars(content: Bars, *, to: Path) -> None:
    with mpl.rc_context(STYLE):
        figure, axes = _empty(title=content.title)
        width = 0.8 / len(content.series)
        peers = iter(PEERS)
        for number, (name, values) in enumerate(content.series.items()):
            colour = OURS if name in content.ours else next(peers)
            by_group = [OURS if group in content.ours else PEERS[0] for group in content.groups]
            middles = [median(each) for each in values]
            places = [
                group + (number - (len(content.series) - 1) / 2) * width
                for group in range(len(values))
            ]
            drawn = axes.bar(
                places,
                middles,
                width * 0.92,
                label=name,
                color=colour if len(content.series) > 1 else by_group,
                yerr=[
                    [middle - min(each) for middle, each in zip(middles, values, strict=True)],
                    [max(each) - middle for middle, each in zip(middles, values, strict=True)],
                ],
                ecolor="#323f4b",
                capsize=2,
                error_kw={"linewidth": 0.8},
            )
            axes.bar_label(drawn, fmt="{:.3g}", padding=2, fontsize=9)
        axes.set_xticks(range(len(content.groups)), content.groups)
        axes.tick_params(axis="x", length=0)
        axes.margins(y=0.12)
        _finish(figure, axes, unit=content.unit, to=to)


def lines(content: Lines, *, to: Path) -> None:
    with mpl.rc_context(STYLE):
        figure, axes = _empty(title=content.title)
        styles = iter(("-", "--", ":", "-."))
        peers = iter(PEERS)
        for name, values in content.series.items():
            axes.plot(
                range(len(values)),
                values,
                label=name,
                color=OURS if name in content.ours else next(peers),
                linestyle=next(styles) if name in content.ours else "-",
                marker="o",
                linewidth=2,
            )
            for place, value in enumerate(values):
                axes.annotate(
                    f"{value:.0f}",
                    (place, value),
                    xytext=(0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=9,
                )
        axes.set_xticks(range(len(content.points)), content.points)
        axes.set_xlabel(content.axis)
        axes.margins(x=0.06)
        axes.set_ylim(0, 1.3 * max(max(values) for values in content.series.values()))
        _finish(figure, axes, unit=content.unit, to=to)


def _empty(*, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=INCHES, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    return figure, axes


def _finish(figure: Figure, axes: Axes, *, unit: str, to: Path) -> None:
    axes.set_ylabel(unit)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, metadata=FORMATS[to.suffix])
