"""What choosing the epoch is worth, and what the common space looks like. Every figure is drawn
from the records alone."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.pages.figures import Data
from common.training.records import FinishedRecord
from papers.dscmr.retrieval import RECALL_LEVELS

VARIANT, EDITION, SEED = "wikipedia-file-order", "shallow", 0  # whose pictures are shown; the authors' order of batches
PROTOCOLS = ("test-best", "val-best", "last")
CLASSES = "art", "biology", "geography", "history", "literature", "media", "music", "royalty", "sport", "warfare"
FIRST = 10  # of the items found, of which the title speaks


def map_against_epochs(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Average mAP after every epoch of one seed, on test and on validation pairs, and the epoch that each protocol
    takes."""
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
    title = f"The best epoch on the test pairs scores {_gain(record, 'last'):.3f} above the last"
    axes.set_title(f"{title}\n({VARIANT}, {EDITION}, seed {record.seed})", fontsize=10)
    axes.set(xlabel="epoch", ylabel="average mAP")
    axes.legend(loc="lower right")
    return figure


def what_the_choice_gives(records: list[FinishedRecord], data: Data) -> Figure | None:
    """How much higher the average mAP is at the epoch chosen on the test pairs, as the authors' code chooses, than at
    the one chosen on validation pairs and at the last: every seed, and the mean in numbers."""
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
    axes.margins(x=0.16)  # room for the last number
    most = max(np.mean([_gain(record, "last") for record in group]) for group in groups.values())
    figure.suptitle(f"Choosing the epoch on the test pairs gains up to {most:.3f} over the last epoch", fontsize=10)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def precision_curves(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Interpolated precision at every recall, and precision among the first K found, with the weights of the last
    epoch, mean of the seeds."""
    runs = [record for record in records if (record.variant, record.data.edition) == (VARIANT, EDITION)]
    if not runs:
        return None
    figure, (by_recall, by_rank) = plt.subplots(1, 2, figsize=(7.4, 3.2), sharey=True)
    among_first = []
    for way, label, style in (("i2t", "image to text", "-"), ("t2i", "text to image", "--")):
        precision = np.mean([run.details[f"precision_recall_{way}"] for run in runs], axis=0)
        by_recall.plot(RECALL_LEVELS, precision, style, marker=".", label=label)
        ranks, precision = np.mean([run.details[f"precision_at_k_{way}"] for run in runs], axis=0).T
        by_rank.semilogx(ranks, precision, style, marker=".", label=label)
        among_first.append(f"{100 * precision[list(ranks).index(FIRST)]:.0f} % ({label})")
    by_recall.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, None))
    by_rank.set(xlabel="K", title="among the first K", xticks=[1, 10, 100], xticklabels=["1", "10", "100"])
    by_recall.set_title("interpolated")
    by_rank.legend()
    seeds = f"{VARIANT}, {EDITION}, last epoch, mean of {len(runs)} seed{'s' if len(runs) > 1 else ''}"
    title = f"Of the first {FIRST} found, {' and '.join(among_first)} are of the right class"
    figure.suptitle(f"{title}\n({seeds})", fontsize=10, y=1.08)
    return figure


def common_space(records: list[FinishedRecord], data: Data) -> Figure | None:
    """t-SNE of the test pairs in the common space, before and after training. The titles say how many images have a
    text of their own class as the nearest one in the picture."""
    record = _shown(records)
    if record is None:
        return None
    labels = np.array(record.details["test_labels"])
    figure, both = plt.subplots(1, 2, figsize=(7.4, 3.8))
    for axes, moment in zip(both, ("before", "after"), strict=True):
        points = np.array(record.details[f"tsne_{moment}"]).reshape(2, -1, 2)
        for modality, marker, where in (("images", "o", points[0]), ("texts", "^", points[1])):
            axes.scatter(*where.T, c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, marker=marker, s=9,
                         linewidths=0, alpha=0.8, label=modality)  # fmt: skip
        distances = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
        near = 100 * np.mean(labels[distances.argmin(axis=1)] == labels)
        axes.set(
            title=f"{moment} training: {near:.0f} % of the images\nhave a text of their class nearest",
            xticks=[],
            yticks=[],
        )
        axes.title.set_fontsize(10)
        axes.grid(False)
    marks = [Line2D([], [], color="black", marker=mark, linestyle="none", markersize=4) for mark in "o^"]
    figure.legend(marks, ["images", "texts"], loc="upper center", bbox_to_anchor=(0.5, 0.09), ncols=2)
    colours = plt.get_cmap("tab10")
    classes = [Line2D([], [], color=colours(number), marker="s", linestyle="none") for number in range(len(CLASSES))]
    figure.legend(classes, CLASSES, loc="upper center", bbox_to_anchor=(0.5, 0.03), ncols=5, fontsize=8)
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
