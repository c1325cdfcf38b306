"""How fast it is on which kind of machine, and how time grows: what `bench --keep` measured, and its figure."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Literal

from common.base import paths
from common.base.schema import Checked, read

if TYPE_CHECKING:  # imported when something is drawn
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Expected = Literal["proportional", "constant"]  # how time should grow with the size
PANEL, COLUMNS = (3.0, 2.3), 3  # of a panel, in inches; in a row
TITLE = 32  # characters in a line
MARKERS = "os^Dv"  # a machine each, and then again


class Timed(Checked):
    """One job of a paper, against the straightforward way."""

    paper: str
    job: str
    ratio: float  # straightforward time over ours
    samples_per_s: float
    share: float  # of the measured matrix-multiply rate on as many threads
    peak_memory_mb: float  # so far: both ways, and the jobs before; of this process, or on the GPU where the job is
    whole: str  # what a user waits for
    whole_s: float  # and how long, at this rate
    instruction_set: str  # of the processor, as far as our way uses it


class Grown(Checked):
    """How long some work took at each of its sizes."""

    work: str
    size: str
    sizes: list[int]
    seconds: list[float]
    expected: Expected


class Speed(Checked):
    """Everything that `bench --keep` measured on one kind of machine."""

    date: str
    commit: str
    processor: str
    device: str  # the processor too where there is no GPU
    instruction_set: str
    limited: bool  # whether PyTorch was told to use less of the processor than it has
    torch: str
    jobs: list[Timed]
    growth: list[Grown]

    @property
    def kind(self) -> str:
        """Of the machine: 'AVX2', or a GPU's name."""
        return self.instruction_set if self.device == self.processor else self.device

    @property
    def machine(self) -> str:
        """'AVX2 (AMD EPYC, limited to it)'"""
        return f"{self.kind} ({self.processor}{', limited to it' if self.limited else ''})"

    def path(self) -> Path:
        """Where it belongs: a file for each kind of machine."""
        return paths.RESULTS / "speed" / f"{self.kind.lower().replace(' ', '-')}.json"


def kept() -> list[Speed]:
    """What was measured, in the order of its files.

    Raises:
        UsageError: a file is not such a measurement.
    """
    return [read(path, Speed) for path in sorted((paths.RESULTS / "speed").glob("*.json"))]


def growth_figure(measured: list[Speed]) -> Figure | None:
    """A panel for each kind of work: seconds against its size. Dashed: what the smallest size leads to. None without
    any."""
    import matplotlib.pyplot as plt

    first: dict[tuple[str, str], Grown] = {}  # of each kind of work
    for speed in measured:
        for of in speed.growth:
            first.setdefault((of.work, of.size), of)
    works = list(first.values())
    if not works:
        return None
    columns = min(COLUMNS, len(works))
    rows = -(-len(works) // columns)
    size = PANEL[0] * columns, PANEL[1] * rows
    figure, _ = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for unused in figure.axes[len(works) :]:
        unused.remove()
    machines: dict[str, Artist] = {}
    for place, work in zip(figure.axes, works, strict=True):
        taken: list[float] = []
        for number, speed in enumerate(measured):
            marker, colour = MARKERS[number % len(MARKERS)], f"C{number}"
            for of in speed.growth:
                if (of.work, of.size) == (work.work, work.size):
                    (line,) = place.plot(of.sizes, of.seconds, marker=marker, markersize=4, color=colour)
                    machines[speed.machine] = line
                    taken += of.seconds
        _frame(place, work, taken)
    for first_of_row in figure.axes[::columns]:
        first_of_row.set_ylabel("seconds")
    figure.legend(list(machines.values()), list(machines), loc="outside lower center", ncols=len(machines), fontsize=8)
    return figure


def _frame(place: Axes, work: Grown, taken: list[float]) -> None:
    """The axes of a panel, whole decades of seconds, and how the time of the first machine's smallest size should
    grow."""
    place.set(xscale="log", yscale="log", xlabel=work.size)
    place.set_title(fill(work.work.replace("`", ""), TITLE), fontsize=9)
    factors = [size / work.sizes[0] if work.expected == "proportional" else 1 for size in work.sizes]
    expected = [work.seconds[0] * factor for factor in factors]
    place.plot(work.sizes, expected, "--", color="#999999", linewidth=0.9, zorder=0)
    place.set_xticks(work.sizes, [f"{size:,}" for size in work.sizes], rotation=30)
    exponents = [math.log10(seconds) for seconds in taken + expected]
    lowest = math.floor(min(exponents))
    place.set_ylim(10**lowest, 10 ** max(lowest + 1, math.ceil(max(exponents))))
    place.minorticks_off()
