"""Training on CIFAR-10 (the paper's Fig. 6) and the layer responses (Fig. 7)."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from common.pages.figures import Data
from common.training.records import FinishedRecord
from papers.resnet.train import VARIANTS

KINDS = {"plain": "plain networks", "resnet": "residual networks"}
FULL = VARIANTS["resnet20"].iterations  # whose errors are shown up to 20 %, as in the paper, unless a curve ends above


def error_against_iterations(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Training error (dashed), of the pictures as they come, and test error (bold) of every seed, as in the paper's
    Fig. 6; one row for each length of the schedule, one column for each kind of network. The titles give the mean
    training error at the end of these curves; the tables, that of the trained network on the pictures unaltered."""
    records = [record for record in records if record.data.dataset == "cifar10"]
    lengths = sorted({record.recipe["iterations"] for record in records}, reverse=True)
    depths = sorted({record.recipe["depth"] for record in records})
    if not lengths:
        return None
    kinds = {kind: title for kind, title in KINDS.items() if any(kind_of(record) == kind for record in records)}
    size = (max(4.4, 3.6 * len(kinds)), 3.0 * len(lengths))
    figure, grid = plt.subplots(len(lengths), len(kinds), figsize=size, sharey="row", squeeze=False)
    for length, row in zip(lengths, grid, strict=True):
        for axis, (kind, title) in zip(row, kinds.items(), strict=True):
            shown = [r for r in records if r.recipe["iterations"] == length and kind_of(r) == kind]
            for record in shown:
                depth, x = record.recipe["depth"], np.array(record.curves["iteration"]) / 1000
                look = {"color": plt.get_cmap("tab10")(depths.index(depth)), "alpha": 0.8}
                label = None if record.seed else f"{kind}-{depth}"
                axis.plot(x, record.curves["train_error"], linestyle="--", linewidth=0.7, **look)
                axis.plot(x, record.curves["test_error"], linewidth=1.4, label=label, **look)
            axis.set(xlabel="iterations (thousands)", xlim=(0, length / 1000))
            axis.set_title(f"{title}{_ends(shown)}", fontsize=9)
            if shown:
                axis.legend(fontsize=7)
            else:
                axis.text(0.5, 0.5, "not run yet", transform=axis.transAxes, ha="center", fontsize=9)
        ends = [line.get_ydata()[-1] for axis in row for line in axis.lines]
        top = max(20 if length == FULL else 40, 1.1 * max(ends))
        row[0].set(ylabel="error (%): test bold, training dashed", ylim=(0, top))
    figure.tight_layout()
    return figure


def layer_responses(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The standard deviation of what each 3x3 layer gives on the test set after batch normalization, as in the paper's
    Fig. 7: mean over the seeds, in the order of the layers, and sorted."""
    variants = sorted({record.variant for record in records if record.details.get("layer_responses")})
    if not variants:
        return None
    figure, (in_order, by_size) = plt.subplots(2, 1, figsize=(7.2, 5.0))
    for number, variant in enumerate(variants):
        responses = [record.details["layer_responses"] for record in records if record.variant == variant]
        mean = np.mean(responses, axis=0)
        places = np.arange(1, len(mean) + 1)
        style = "--" if kind_of(next(r for r in records if r.variant == variant)) == "plain" else "-"
        look = {"color": plt.get_cmap("tab10")(number % 10), "linestyle": style, "linewidth": 1}
        in_order.plot(places, mean, label=f"{variant} (n = {len(responses)}): {mean.mean():.2f}", **look)
        by_size.plot(places, np.sort(mean)[::-1], **look)
    in_order.set(xlabel="layer, in its place", ylabel="standard deviation")
    by_size.set(xlabel="layers, sorted by their responses", ylabel="standard deviation")
    for axis in (in_order, by_size):
        axis.xaxis.get_major_locator().set_params(integer=True)
    in_order.legend(fontsize=7, ncol=2, title="mean over the layers", title_fontsize=7)
    figure.tight_layout()
    return figure


def _ends(records: list[FinishedRecord]) -> str:
    """', training error at the end\n2.31 % (20 layers), 4.02 % (56 layers)'; '' of no records"""
    by_depth: dict[int, list[float]] = {}
    for record in sorted(records, key=lambda record: record.recipe["depth"]):
        by_depth.setdefault(record.recipe["depth"], []).append(record.curves["train_error"][-1])
    ends = ", ".join(f"{np.mean(of):.2f} % ({depth} layers)" for depth, of in by_depth.items())
    return f", training error at the end\n{ends}" if ends else ""


def kind_of(record: FinishedRecord) -> str:
    return "plain" if record.recipe["shortcuts"] == "none" else "resnet"


FIGURES = {"error_against_iterations": error_against_iterations, "layer_responses": layer_responses}
