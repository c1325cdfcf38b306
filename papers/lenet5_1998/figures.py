"""The paper's Figures 5 and 8 again, and the kernels of C1."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from common.base import paths
from common.claims.papers import load_paper
from common.pages.figures import Data
from common.training.records import FinishedRecord

VARIANT = "lenet5"
DISTORTED = "lenet5-distorted"  # whose mistakes the paper's Figure 8 shows
DATASET = "mnist"
LARGEST_SHOWN = 120  # misclassified digits


def error_against_passes(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Fig. 5: training and test error after each pass, every seed and their mean."""
    runs = [record for record in records if record.variant == VARIANT]
    if not runs:
        return None
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for name, label, color, style in (("test_error", "test", "C0", "-"), ("train_error", "training", "C1", "--")):
        curves = np.array([run.curves[name] for run in runs])
        passes = np.arange(1, curves.shape[1] + 1)
        axes.plot(passes, curves.T, color=color, linewidth=0.6, alpha=0.35, linestyle=style)
        axes.plot(
            passes,
            curves.mean(axis=0),
            color=color,
            linewidth=1.8,
            linestyle=style,
            label=f"{label}, mean of {len(runs)} seeds",
        )
    claims = {claim.metric: claim for claim in load_paper(runs[0].paper).claims if claim.variant == VARIANT}
    for name, label, color in (("test_error", "test", "C0"), ("train_error", "training", "C1")):
        claim = claims[name]
        axes.axhline(claim.value, color=color, linewidth=0.8, linestyle=":")
        text = f"paper: {claim.reported} % {label}"
        axes.text(passes[-1], claim.value, text, ha="right", va="bottom", fontsize=8, color=color)
    axes.set(xlabel="training set passes", ylabel="error (%)", ylim=(0, None), xticks=passes[1::2])
    axes.legend(loc="upper right")
    return figure


def misclassified_digits(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Fig. 8: the test digits that the published weights misclassify, each with
    the right answer (left) and the network's (right)."""
    from papers.lenet5_1998.data import load

    record, mnist = _published(records, DISTORTED), data(DATASET)
    if record is None or mnist is None:
        return None
    wrong = record.details["misclassified"][:LARGEST_SHOWN]
    images = load(mnist).test_images.numpy()
    columns = 12
    rows = -(-len(wrong) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(7.2, 0.78 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (index, label, predicted) in zip(axes.flat, wrong, strict=False):
        axis.imshow(255 - images[index], cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{label} → {predicted}", fontsize=7, pad=1.5)
    figure.subplots_adjust(wspace=0.1, hspace=0.35)
    return figure


def c1_kernels(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The six 5x5 kernels of C1 of the published weights."""
    from safetensors.numpy import load_file

    record = _published(records, VARIANT)
    if record is None:
        return None
    kernels = load_file(paths.ROOT / record.weights.file)["C1.weight"][:, 0]
    limit = float(np.abs(kernels).max())
    figure, axes = plt.subplots(1, len(kernels), figsize=(7.2, 1.5))
    for number, (axis, kernel) in enumerate(zip(axes, kernels, strict=True)):
        picture = axis.imshow(kernel, cmap="RdGy", vmin=-limit, vmax=limit)
        axis.set_title(f"C1 map {number}", fontsize=8)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    figure.colorbar(picture, ax=axes, fraction=0.02, pad=0.02)
    return figure


def _published(records: list[FinishedRecord], variant: str) -> FinishedRecord | None:
    """The record whose weights are published."""
    return next((r for r in records if r.variant == variant and r.weights.file), None)


FIGURES = {
    "error_against_passes": error_against_passes,
    "misclassified_digits": misclassified_digits,
    "c1_kernels": c1_kernels,
}
