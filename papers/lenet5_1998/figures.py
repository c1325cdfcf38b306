"""The paper's Figures 5 and 8 again, and the kernels of C1."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from common.base import paths
from common.claims.papers import load_paper
from common.pages.figures import Data
from common.training.records import FinishedRecord
from common.training.weights import load_weights

VARIANT = "lenet5"
DISTORTED = "lenet5-distorted"  # whose mistakes the paper's Figure 8 shows
DATASET = "mnist"
LARGEST_SHOWN = 120  # misclassified digits


def error_against_passes(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Test and training error of lenet5 after each pass, as in the paper's Fig. 5: every seed thin, their mean bold.
    The bands are the printed numbers with the margins within which they count as reproduced."""
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
        low, high = claim.value - claim.tolerance, claim.value + claim.tolerance
        axes.axhspan(low, high, color=color, alpha=0.12, linewidth=0)
        axes.axhline(claim.value, color=color, linewidth=0.8, linestyle=":")
        text = f"paper: {claim.reported} % {label}"
        axes.text(passes[-1], high, text, ha="right", va="bottom", fontsize=8, color=color)
    end = {name: np.mean([run.curves[name][-1] for run in runs]) for name in claims}
    title = f"lenet5 ends at {end['test_error']:.2f} % test and {end['train_error']:.2f} % training error"
    axes.set(xlabel="training set passes", ylabel="error (%)", ylim=(0, None), xticks=passes[1::2], title=title)
    axes.legend(loc="upper right")
    return figure


def misclassified_digits(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The test digits that the published weights of lenet5-distorted get wrong, as in the paper's Fig. 8. Above each
    the right answer, then the network's."""
    from papers.lenet5_1998.data import load

    record, mnist = _published(records, DISTORTED), data(DATASET)
    if record is None or mnist is None:
        return None
    missed = record.details["misclassified"]
    wrong = missed[:LARGEST_SHOWN]
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
    title = f"{DISTORTED}, seed {record.seed}, gets {len(missed)} of {len(images):,} test digits wrong"
    figure.suptitle(title, fontsize=10, y=0.96)
    return figure


def c1_kernels(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The kernels of C1 in the published weights of lenet5, one for each map; grey is positive, red negative."""
    record = _published(records, VARIANT)
    if record is None:
        return None
    kernels = load_weights(paths.ROOT / record.weights.file)["C1.weight"][:, 0].numpy()
    limit = float(np.abs(kernels).max())
    figure, axes = plt.subplots(1, len(kernels), figsize=(7.2, 1.5))
    for number, (axis, kernel) in enumerate(zip(axes, kernels, strict=True)):
        picture = axis.imshow(kernel, cmap="RdGy", vmin=-limit, vmax=limit)
        axis.set_title(f"C1 map {number}", fontsize=8)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    figure.colorbar(picture, ax=axes, fraction=0.02, pad=0.02)
    figure.suptitle(f"What C1 of {VARIANT}, seed {record.seed}, has learned to look for", fontsize=10, y=1.1)
    return figure


def _published(records: list[FinishedRecord], variant: str) -> FinishedRecord | None:
    """The record whose weights are published."""
    return next((r for r in records if r.variant == variant and r.weights.file), None)


FIGURES = {
    "error_against_passes": error_against_passes,
    "misclassified_digits": misclassified_digits,
    "c1_kernels": c1_kernels,
}
