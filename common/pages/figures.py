"""Figures of every paper, in one style, the same byte for byte when drawn again."""

import ast
import io
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base import paths
from common.base.errors import DataError
from common.base.files import write_whole
from common.base.progress import say
from common.claims.comparison import all_comparisons
from common.claims.papers import Paper, find_papers, load_paper
from common.data.passports import LocatedData, find_passport, locate
from common.pages.forest import forest
from common.pages.speed import growth_figure, kept
from common.training.records import FinishedRecord, published_records

if TYPE_CHECKING:  # imported when something is drawn
    from matplotlib.typing import RcKeyType

FOREST, GROWTH = "claims.png", "growth.png"  # below results/figures
Data = Callable[[str], LocatedData | None]  # a dataset's data by its name, None where it is not found here
STYLE: "dict[RcKeyType, Any]" = {
    "figure.dpi": 160,
    "figure.facecolor": "white",  # opaque: legible on light and dark pages and on paper
    "savefig.facecolor": "white",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    # Told apart by lightness too, so that they survive a black-and-white printer.
    "axes.prop_cycle": "cycler('color', ['#0b3c5d', '#d1495b', '#66a182', '#edae49'])",
}


def draw_all() -> list[Path]:
    """Draw every paper's figures from its published records, and those of no single paper. One that cannot be drawn
    again is left as it is."""
    drawn: dict[Path, bytes | None] = {}
    for name in find_papers():
        drawn |= draw_figures(load_paper(name))
    drawn |= draw_overall()
    for path, picture in drawn.items():
        if picture is not None:
            write_whole(path, picture)
        elif path.exists():
            say(f"{path.relative_to(paths.ROOT)} is left as it is: what it is drawn from is not here")
    return [path for path, picture in drawn.items() if picture is not None]


def draw_figures(paper: Paper, data_dir: Path | None = None) -> dict[Path, bytes | None]:
    """A paper's figures as PNG, by the file that each belongs to; None where what it is drawn from is not here.

    A paper's figures.py has FIGURES, a dict from name to a function
    (records, data) -> matplotlib Figure, or None where it lacks what it needs:
    `records` are the finished ones of the paper, and `data(dataset)` gives the
    located data of one of its datasets, None where that is not found here.
    """
    records = [record for record in published_records(paper.name) if isinstance(record, FinishedRecord)]
    if not (paper.has_figures and records):
        return {}
    data = _data_of(paper, data_dir)
    return {
        paths.FIGURES / paper.name / f"{name}.png": _drawn(partial(draw, records, data))
        for name, draw in paper.module("figures").FIGURES.items()
    }


def draw_overall() -> dict[Path, bytes]:
    """The figures of no single paper, by their files: all claims in one, and how time grows. None of what was not
    measured."""
    drawn = {FOREST: _drawn(lambda: forest(all_comparisons())), GROWTH: _drawn(lambda: growth_figure(kept()))}
    return {paths.FIGURES / name: picture for name, picture in drawn.items() if picture}


def figures_of(paper: Paper) -> dict[str, str]:
    """The figures that are there, in the order of figures.py, and what each shows: the docstring of the function that
    draws it and has its name. Nothing is imported for it: that would need torch."""
    told = {}
    if paper.has_figures:
        functions = ast.parse((paper.folder / "figures.py").read_text(encoding="utf-8")).body
        told = {of.name: ast.get_docstring(of) for of in functions if isinstance(of, ast.FunctionDef)}
    drawn = {file.stem for file in (paths.FIGURES / paper.name).glob("*.png")}
    ordered = [*(name for name in told if name in drawn), *sorted(drawn - told.keys())]
    return {name: " ".join((told.get(name) or name.replace("_", " ")).split()) for name in ordered}


def _data_of(paper: Paper, data_dir: Path | None) -> Data:
    """What finds the paper's datasets: each once, and only when a figure asks for it."""

    @cache
    def data(dataset: str) -> LocatedData | None:
        try:
            return locate(find_passport(dataset, paper.folder), data_dir)
        except DataError:
            return None

    return data


def _drawn(draw: Callable) -> bytes | None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure = draw()
        if figure is None:
            return None
        picture = io.BytesIO()
        # Without metadata: it would name the version and so change the bytes.
        figure.savefig(picture, format="png", metadata={"Software": None}, bbox_inches="tight")
        plt.close(figure)
    return picture.getvalue()
