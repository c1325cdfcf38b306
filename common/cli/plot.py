"""`plot`: the curves of runs, finished or still going, beside those of the published seeds."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.base.errors import DAMAGED, UsageError
from common.base.files import ANOTHER_PLACE, require_writable, write_whole
from common.base.progress import say
from common.claims.papers import find_papers
from common.pages.figures import STYLE
from common.training.records import FinishedRecord, published_records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = "curves.csv"  # what a run writes from time to time
Curves = dict[str, list[float]]


@dataclass(frozen=True)
class Seed:
    """One seed of a run, in the folder RUNS/PAPER/VARIANT/PRESET-EDITION/seed-K."""

    folder: Path
    curves: Curves

    @property
    def run(self) -> tuple[str, str, str]:
        paper, variant, how = ("", "", "", *self.folder.parts)[-4:-1]
        return paper, variant, how

    @property
    def label(self) -> str:
        return " / ".join([*self.run[1:], self.folder.name])


def plot_runs(runs: list[Path], output: Path) -> None:
    """Draw each curve of these runs in a panel of its own, and behind it the published seeds of their variants.

    Args:
        runs: a seed's folder, or one that has several.

    Raises:
        UsageError: there are no curves in it, or `output` is no picture.
        MachineError: nothing can be written at `output`.
    """
    if output.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UsageError(f"--output {output}: a figure is written as .png, .pdf or .svg.")
    require_writable(output, ANOTHER_PLACE)
    seeds = [seed for run in runs for seed in _seeds(run)]
    published = [record for run in dict.fromkeys(seed.run for seed in seeds) for record in _published(*run)]
    picture = io.BytesIO()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        _draw(seeds, published).savefig(picture, format=output.suffix[1:].lower(), bbox_inches="tight")
    write_whole(output, picture.getvalue(), ANOTHER_PLACE)
    say(f"{output}: {len(seeds)} of these seeds beside {len(published)} published ones")


def _seeds(run: Path) -> list[Seed]:
    try:
        files = sorted(run.absolute().rglob(CURVES))
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise UsageError(f"{run}: {error.strerror}.") from None
    if not files:
        raise UsageError(f"{run} holds no curves: name a folder of runs/ in which a run has begun.")
    return [Seed(file.parent, _read(file)) for file in files]


def _read(file: Path) -> Curves:
    try:
        names, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
        if not names:
            raise ValueError("no curves")
        return dict(zip(names, ([float(value) for value in column] for column in zip(*rows, strict=True)), strict=True))
    except (csv.Error, *DAMAGED):
        raise UsageError(f"{file} is not a file of curves as a run writes it.") from None


def _published(paper: str, variant: str, how: str) -> list[FinishedRecord]:
    """The published seeds on the same edition or, where there are none, on all."""
    if paper not in find_papers():
        return []
    records = [r for r in published_records(paper) if isinstance(r, FinishedRecord) and r.variant == variant]
    same = [record for record in records if how.partition("-")[2].startswith(record.data.edition)]
    return same or records


def _draw(seeds: list[Seed], published: list[FinishedRecord]) -> "Figure":
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(name for seed in seeds for name in seed.curves))
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 2.8 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for axis, name in zip(axes.flat, names, strict=False):
        for record in published:
            values = record.curves.get(name, [])
            label = f"published: {record.variant}, {record.data.edition}"
            axis.plot(range(1, len(values) + 1), values, color="#999999", linewidth=0.8, label=label)
        for seed in seeds:
            values = seed.curves.get(name, [])
            marker = "o" if len(values) == 1 else None
            axis.plot(range(1, len(values) + 1), values, linewidth=1.8, marker=marker, label=seed.label)
        axis.set(title=name.replace("_", " "), xlabel="times logged")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = axes.flat[0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))  # the published seeds of a variant have one label
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=2, fontsize=8)
    return figure
