"""The forest plot: every claim that was measured, on one scale."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.claims import verdict as v
from common.claims.comparison import Comparison
from common.claims.rows import Row, label, measured, reported_as

if TYPE_CHECKING:  # imported when something is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour and shape of each verdict: either alone tells them apart, in print and for the colour-blind.
STYLES = {
    v.REPRODUCED: ("#1b7837", "o"),
    v.EXCEEDS: ("#0b3c5d", "^"),
    v.CONSISTENT: ("#2b7bba", "s"),
    v.INCONCLUSIVE: ("#a87400", "D"),
    v.LOWER: ("#762a83", "<"),
    v.HIGHER: ("#762a83", ">"),
    v.NOT_REPRODUCED: ("#b2182b", "X"),
    v.TOO_FEW_SEEDS: ("#777777", "."),
}
MARGIN, GREY = "#e4efe4", "#555555"
MEAN_WIDTH, RUN_WIDTH = 3.4, 1.0  # of the bars, in points
FARTHEST = 4.0  # margins from the printed number that are drawn; an arrow stands for what lies beyond
PLOT_WIDTH, ROW_HEIGHT = 3.6, 0.25  # inches
COLUMNS = {"paper": 0.12, "here": 1.32, "verdict": 3.05}  # inches to the right of the plot


@dataclass(frozen=True)
class Drawn:
    """A row that settles a claim, and by how much what was measured differs from the printed number."""

    row: Row
    margin: float
    difference: v.Summary

    @property
    def name(self) -> str:
        return f"{self.row.variant}, {label(self.row)}"


def forest(comparisons: list[Comparison]) -> Figure | None:
    """The difference of every measured claim from the printed number in units of its margin; None where there is none.

    Thick bars are 90 % intervals of the mean, thin ones 95 % prediction intervals of one more run.
    """
    import matplotlib.pyplot as plt

    lines: list[str | Drawn] = []
    for comparison in comparisons:
        if of_paper := _drawn(comparison):
            lines += [comparison.title, *of_paper]
    if not lines:
        return None
    figure = plt.figure(figsize=(PLOT_WIDTH, ROW_HEIGHT * (len(lines) + 1)))
    axes = figure.add_axes((0, 0, 1, 1))  # what is beside it is included when the figure is saved
    axes.axvspan(-1, 1, color=MARGIN, linewidth=0, zorder=0)
    axes.axvline(0, color="#333333", linewidth=0.9, zorder=1)
    drawn = [line for line in lines if isinstance(line, Drawn)]
    alike = Counter((of.row.paper, of.name) for of in drawn)
    for place, line in enumerate(lines):
        if isinstance(line, Drawn):
            protocol = f", {line.row.protocol}" if alike[line.row.paper, line.name] > 1 else ""
            _draw_row(axes, line, place, line.name + protocol)
        else:
            _beside(axes, -0.12, place, line, ha="right", fontweight="bold")
    for heading, x in COLUMNS.items():
        _beside(axes, PLOT_WIDTH + x, -1.1, heading, color=GREY)
    _frame(axes, len(lines))
    counted = Counter(of.row.verdict for of in drawn)
    found = ", ".join(f"{counted[word]} {word}" for word in v.WORDS if word in counted)
    numbers = "1 printed number" if len(drawn) == 1 else f"{len(drawn)} printed numbers"
    axes.set_title(f"{numbers} measured on the paper's data: {found}", fontsize=10, pad=22, loc="left")
    _legend(axes, len(lines))
    return figure


def _drawn(comparison: Comparison) -> list[Drawn]:
    rows = comparison.front_rows
    return [Drawn(row, row.claim.tolerance, row.difference) for row in rows if row.claim and row.difference]


def _draw_row(axes: Axes, drawn: Drawn, place: int, name: str) -> None:
    row, margin, spread = drawn.row, drawn.margin, drawn.difference.spread
    color, marker = STYLES[row.verdict]
    if spread and row.verdict != v.TOO_FEW_SEEDS:
        _bar(axes, place, spread.next_low / margin, spread.next_high / margin, color, RUN_WIDTH)
        _bar(axes, place, spread.low / margin, spread.high / margin, color, MEAN_WIDTH)
    at = drawn.difference.mean / margin
    shape: dict[str, Any] = {
        "marker": marker,
        "ms": 8.5 if marker == "." else 6.5,
        "color": color,
        "mec": "white",
        "mew": 0.7,
    }
    if abs(at) <= FARTHEST:
        axes.plot(at, place, **shape, clip_on=False, zorder=5)
    else:
        _bar(axes, place, at, at, color, MEAN_WIDTH)
    _beside(axes, -0.12, place, name, ha="right")
    _beside(axes, PLOT_WIDTH + COLUMNS["paper"], place, reported_as(row))
    _beside(axes, PLOT_WIDTH + COLUMNS["here"], place, measured(row))
    _beside(axes, PLOT_WIDTH + COLUMNS["verdict"], place, row.verdict, color=color, fontweight="bold")
    beside_the_word = 1 + (COLUMNS["verdict"] - 0.12) / PLOT_WIDTH
    axes.plot(beside_the_word, place, transform=axes.get_yaxis_transform(), **shape, clip_on=False)


def _bar(axes: Axes, place: int, low: float, high: float, color: str, width: float) -> None:
    """An interval, cut off at the ends of the plot, with an arrow at each end that is cut off."""
    ends = [min(max(end, -FARTHEST), FARTHEST) for end in (low, high)]
    axes.plot(ends, [place, place], color=color, linewidth=width, solid_capstyle="butt", zorder=3)
    for is_cut, end, arrow in ((low < -FARTHEST, -FARTHEST, "<"), (high > FARTHEST, FARTHEST, ">")):
        if is_cut:
            axes.plot(end, place, arrow, color=color, markersize=5, clip_on=False, zorder=4)


def _beside(axes: Axes, x: float, place: float, text: str, **how: Any) -> None:
    """Text in the row of a claim; x in inches from the left end of the plot."""
    axes.text(x / PLOT_WIDTH, place, text, transform=axes.get_yaxis_transform(), va="center", **{"fontsize": 8} | how)


def _frame(axes: Axes, lines: int) -> None:
    axes.set(xlim=(-FARTHEST, FARTHEST), ylim=(lines - 0.3, -0.7), yticks=[])
    axes.set_xlabel("measured − printed, in margins")
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)


def _legend(axes: Axes, lines: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color=MARGIN, label="the margin"),
        Line2D([], [], color=GREY, linewidth=MEAN_WIDTH, label="90 % interval of the mean"),
        Line2D([], [], color=GREY, linewidth=RUN_WIDTH, label="95 % prediction interval of one more run"),
    ]
    below = -0.5 / (ROW_HEIGHT * (lines + 1))  # half an inch, in heights of the plot
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, below), ncols=3, fontsize=7.5)
