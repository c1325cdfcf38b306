"""How fast it is on which kind of machine, and how time grows: what `bench --keep` measured, and its figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common.base import paths
from common.base.schema import Checked, read

if TYPE_CHECKING:  # imported when something is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (2.5, 2.3)  # width and height in inches
MARKERS = ("o", "s", "^", "D", "v")  # a machine each


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
    instruction_set: str  # of the processor, as PyTorch uses it


class Grown(Checked):
    """How long some work took at each of its sizes."""

    work: str
    size: str
    sizes: list[int]
    seconds: list[float]


class Speed(Checked):
    """Everything that `bench --keep` measured on one kind of machine."""

    date: str
    commit: str
    device: str
    instruction_set: str
    limited: bool  # whether PyTorch was told to use less of the processor than it has
    torch: str
    jobs: list[Timed]
    growth: list[Grown]

    @property
    def machine(self) -> str:
        """'AVX2 (AMD EPYC, limited to it)'"""
        return f"{self.instruction_set} ({self.device}{', limited to it' if self.limited else ''})"

    def path(self) -> Path:
        """Where it belongs: a file for each kind of machine."""
        kind = self.instruction_set if self.on_cpu else self.device
        return paths.RESULTS / "speed" / f"{kind.lower().replace(' ', '-')}.json"

    @property
    def on_cpu(self) -> bool:
        return "nvidia" not in self.device.lower()


def kept() -> list[Speed]:
    """What was measured, in the order of its files.

    Raises:
        UsageError: a file is not such a measurement.
    """
    return [read(path, Speed) for path in sorted((paths.RESULTS / "speed").glob("*.json"))]


def growth_figure(measured: list[Speed]) -> Figure | None:
    """A panel for each kind of work: seconds against its size. Dashed: in proportion to it. None without any."""
    import matplotlib.pyplot as plt

    panels: dict[tuple[str, str], list[tuple[Speed, Grown]]] = {}
    for of in measured:
        for grown in of.growth:
            panels.setdefault((grown.work, grown.size), []).append((of, grown))
    if not panels:
        return None
    width, height = PANEL
    figure, _ = plt.subplots(1, len(panels), figsize=(width * len(panels), height), layout="constrained")
    for place, lines in zip(figure.axes, panels.values(), strict=True):
        for (of, grown), marker in zip(lines, MARKERS, strict=False):
            place.plot(grown.sizes, grown.seconds, marker=marker, markersize=4, label=of.machine)
        _frame(place, lines[0][1])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    return figure


def _frame(place: Axes, grown: Grown) -> None:
    """The axes of a panel, and what the first machine's smallest size would lead to in proportion."""
    place.set(xscale="log", yscale="log", xlabel=grown.size)
    place.set_title(grown.work, fontsize=9)
    proportional = [grown.seconds[0] * size / grown.sizes[0] for size in grown.sizes]
    place.plot(grown.sizes, proportional, "--", color="#999999", linewidth=0.9, zorder=0)
    place.set_xticks(grown.sizes, [f"{size:,}" for size in grown.sizes])
    place.minorticks_off()
