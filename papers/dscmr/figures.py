"""What choosing the epoch is worth, and what the common space looks like. Every figure is drawn
from the records alone."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from common.pages.figures import Data
from common.training.records import FinishedRecord
from papers.dscmr.retrieval import RECALL_LEVELS

VARIANT, EDITION, SEED = "wikipedia-file-order", "shallow", 0  # whose pictures are shown; the authors' order of batches
PROTOCOLS = ("test-best", "val-best", "last")


def map_against_epochs(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Average mAP after every epoch of one seed, on test and validation pairs, with the epoch that
    each protocol takes."""
    record = _shown(records)
    if record is None or "val-best" not in record.metrics:
        return None
    curves = {name: np.array(record.curves[f"{name}_map_avg"]) for name in ("test", "val")}
    epochs = np.arange(1, len(curves["test"]) + 1)
    figure, axes = plt.subplots(figsize=(6, 3.6))
    axes.plot(epochs, curves["test"], label="test pairs", linewidth=1.2)
    axes.plot(epochs, curves["val"], label="validation pairs", linewidth=1.2, linestyle="--")
    chosen = (curves["test"].argmax(), curves["val"].argmax(), len(epochs) - 1)
    marks = (("C2", "o", 11), ("C4", "s", 8), ("C3", "D", 5))  # smaller and smaller: they may overlap
    for protocol, at, (color, marker, size) in zip(PROTOCOLS, chosen, marks, strict=True):
        value = record.metrics[protocol]["map_avg"]
        axes.plot(epochs[at], value, marker, color=color, markersize=size, markeredgecolor="black", linestyle="none",
                  label=f"{protocol}: {value:.3f}, epoch {epochs[at]}")  # fmt: skip
    axes.set(xlabel="epoch", ylabel="average mAP", title=f"{VARIANT} ({EDITION}), seed {record.seed}")
    axes.legend(loc="lower right")
    return figure


def what_the_choice_gives(records: list[FinishedRecord], data: Data) -> Figure | None:
    """How much higher the average mAP is at the epoch chosen on the test pairs than at the one chosen
    on validation pairs and at the last: every variant and edition that has all three, every seed and the mean,
    in numbers too."""
    groups: dict[str, list[FinishedRecord]] = {}
    for record in records:
        if set(PROTOCOLS) <= record.metrics.keys():
            groups.setdefault(f"{record.variant} ({record.data.edition})", []).append(record)
    if not groups:
        return None
    figure, axes = plt.subplots(figsize=(7.2, 1 + 0.45 * len(groups)), layout="constrained")
    for offset, color, other, marker in ((-0.13, "C0", "val-best", "s"), (0.13, "C1", "last", "D")):
        for row, group in enumerate(groups.values()):
            gains = [_gain(record, other) for record in group]
            heights = np.full(len(gains), row + offset)
            axes.plot(gains, heights, marker, color=color, markersize=3.5, alpha=0.5, linestyle="none")
            label = f"test-best over {other}" if row == 0 else None
            axes.plot(np.mean(gains), row + offset, "|", color=color, markersize=13, markeredgewidth=2.2, label=label)
            beside = {"xytext": (9, 0), "textcoords": "offset points", "va": "center", "fontsize": 8, "color": color}
            axes.annotate(f"{np.mean(gains):+.3f}", (max(gains), row + offset), **beside)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(
        xlabel="gain in average mAP", yticks=range(len(groups)), yticklabels=groups, ylim=(len(groups) - 0.5, -0.5)
    )
    axes.margins(x=0.12)  # room for the last number
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def precision_curves(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Interpolated precision at every recall, and precision among the first K, with the weights of
    the last epoch, mean of the seeds."""
    runs = [record for record in records if (record.variant, record.data.edition) == (VARIANT, EDITION)]
    if not runs:
        return None
    figure, (by_recall, by_rank) = plt.subplots(1, 2, figsize=(7.4, 3.2), sharey=True)
    for way, label, style in (("i2t", "image to text", "-"), ("t2i", "text to image", "--")):
        precision = np.mean([run.details[f"precision_recall_{way}"] for run in runs], axis=0)
        by_recall.plot(RECALL_LEVELS, precision, style, marker=".", label=label)
        ranks, precision = np.mean([run.details[f"precision_at_k_{way}"] for run in runs], axis=0).T
        by_rank.semilogx(ranks, precision, style, marker=".", label=label)
    by_recall.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, None))
    by_rank.set(xlabel="K", title="among the first K", xticks=[1, 10, 100], xticklabels=["1", "10", "100"])
    by_recall.set_title("interpolated")
    by_rank.legend()
    figure.suptitle(
        f"{VARIANT} ({EDITION}), last epoch, mean of {len(runs)} seed{'s' if len(runs) > 1 else ''}", y=1.03
    )
    return figure


def common_space(records: list[FinishedRecord], data: Data) -> Figure | None:
    """t-SNE of the test pairs in the common space, before and after training; colours are classes,
    pictures and texts have marks of their own."""
    record = _shown(records)
    if record is None:
        return None
    labels = np.array(record.details["test_labels"])
    figure, both = plt.subplots(1, 2, figsize=(7.4, 3.8))
    for axes, moment in zip(both, ("before", "after"), strict=True):
        points = np.array(record.details[f"tsne_{moment}"]).reshape(2, -1, 2)
        for modality, marker, where in (("images", "o", points[0]), ("texts", "^", points[1])):
            axes.scatter(*where.T, c=labels, cmap="tab20" if labels.max() > 9 else "tab10", marker=marker, s=9,
                         linewidths=0, alpha=0.8, label=modality)  # fmt: skip
        axes.set(title=f"{moment} training", xticks=[], yticks=[])
        axes.grid(False)
    legend = figure.legend(*both[0].get_legend_handles_labels(), loc="lower center", ncols=2)
    for handle in legend.legend_handles:  # a class's colour means nothing there
        handle.set(array=None, facecolor="black")
    return figure


def _shown(records: list[FinishedRecord]) -> FinishedRecord | None:
    """The record shown in figures of one seed."""
    wanted = (VARIANT, EDITION, SEED)
    return next((record for record in records if (record.variant, record.data.edition, record.seed) == wanted), None)


def _gain(record: FinishedRecord, protocol: str) -> float:
    return record.metrics["test-best"]["map_avg"] - record.metrics[protocol]["map_avg"]


FIGURES = {
    "map_against_epochs": map_against_epochs,
    "what_the_choice_gives": what_the_choice_gives,
    "precision_curves": precision_curves,
    "common_space": common_space,
}
