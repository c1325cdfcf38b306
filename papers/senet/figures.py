"""Training on CIFAR-10 with and without SE blocks, and what the gates do: at every depth, and by class and map (the
paper's Figs. 6 and 7)."""

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from common.base import paths
from common.claims.papers import load_paper
from common.data.cifar10 import load, on_device
from common.pages.figures import Data
from common.training.records import FinishedRecord, published_records
from common.training.weights import load_weights
from papers.senet.eval import Gates, gates_by_class
from papers.senet.train import STANDARDS, VARIANTS, build_model

CLASSES = "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
SHOWN = "se-resnet20"  # whose published weights Figs. 6 and 7 are drawn of
SAMPLES = 50  # pictures of each class, and at most so many maps of a block, as in the paper
TWO = CLASSES.index("airplane"), CLASSES.index("dog")  # the classes of Fig. 7
STAGES = {"maps32": "32x32", "maps16": "16x16", "maps8": "8x8"}
FULL = VARIANTS[SHOWN].iterations


def error_against_iterations(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Training error (dashed), of the pictures as they come, and test error (bold), of every seed; one panel for each
    network, with blocks and without. The network of 20 layers without blocks may be that of the ResNet paper's folder,
    for it is the same. The titles give the mean test error at the end, in the number format of the training; the tables
    measure it in float32.
    """
    records = [record for record in records if record.data.dataset == "cifar10"]
    if not records:
        return None
    if all(record.variant != "resnet20" for record in records):
        theirs = (record for record in published_records("resnet") if isinstance(record, FinishedRecord))
        records = [*records, *(record for record in theirs if record.variant == "resnet20")]
    plain = [name for name in VARIANTS if not name.startswith("se-")]
    shown = [name for name in plain if any(r.variant.removeprefix("se-") == name for r in records)]
    figure, (axes,) = plt.subplots(1, len(shown), figsize=(max(4.2, 3.6 * len(shown)), 3.2), sharey=True, squeeze=False)
    for axis, name in zip(axes, shown, strict=True):
        ends = []
        for variant, colour in ((name, "C0"), (f"se-{name}", "C1")):
            runs = [record for record in records if record.variant == variant]
            ends += [f"{np.mean([run.curves['test_error'][-1] for run in runs]):.2f} % ({variant})"] if runs else []
            for record in runs:
                x = np.array(record.curves["iteration"]) / 1000
                axis.plot(x, record.curves["train_error"], color=colour, linestyle="--", linewidth=0.7, alpha=0.8)
                label = None if record.seed else variant
                axis.plot(x, record.curves["test_error"], color=colour, linewidth=1.2, alpha=0.8, label=label)
        axis.set_title("test error ends at\n" + ", ".join(ends), fontsize=8)
        axis.set(xlabel="iterations (thousands)", xlim=(0, FULL / 1000), ylim=(0, 20))
        axis.legend(loc="upper right", fontsize=7)
    axes[0].set_ylabel("error (%): test bold, training dashed")
    figure.tight_layout()
    return figure


def gates_by_depth(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Of every block, on the test set: the mean gate, and how much a gate differs from class to class and from picture
    to picture; a line for every seed."""
    gated = [record for record in records if record.details.get("gates")]
    if not gated:
        return None
    variants = [name for name in VARIANTS if any(record.variant == name for record in gated)]
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.8))
    labels = "mean gate", "deviation from class to class", "deviation within a class"
    most = []
    for variant in variants:
        apart = np.mean([np.array(r.details["gates"])[:, 1] for r in gated if r.variant == variant], axis=0)
        most.append(f"block {apart.argmax() + 1} of {len(apart)} ({variant})")
    figure.suptitle(f"Gates tell classes apart most in {', '.join(most)}", fontsize=9)
    for record in gated:
        blocks = np.array(record.details["gates"])
        depth = (np.arange(len(blocks)) + 0.5) / len(blocks)
        colour, name = f"C{variants.index(record.variant)}", None if record.seed else record.variant
        for axis, values in zip(axes, blocks.T, strict=True):
            axis.plot(depth, values, color=colour, marker="o", markersize=2, linewidth=1, alpha=0.8, label=name)
    for axis, label in zip(axes, labels, strict=True):
        for boundary in (1 / 3, 2 / 3):  # where the maps are halved
            axis.axvline(boundary, color="#999999", linewidth=0.6, linestyle=":")
        axis.set(title=label, xlabel="relative depth of the block", xlim=(0, 1), ylim=(0, None))
        axis.title.set_fontsize(8)
    axes[0].legend(loc="lower left", fontsize=7)
    figure.tight_layout()
    return figure


def gates_of_classes(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The mean gate of maps of every block, over 50 test pictures of each class and over all of them, as in the paper's
    Fig. 6; of the published weights."""
    measured = gates_of_published_weights(records, data)
    if measured is None:
        return None
    columns = len(measured) // len(STAGES)
    size = (2.4 * columns, 1.9 * len(STAGES))
    figure, axes = plt.subplots(len(STAGES), columns, figsize=size, sharey=True, squeeze=False)
    for (name, gates), axis in zip(measured.items(), axes.flat, strict=True):
        maps = evenly_spaced(gates)
        for number, of_class in enumerate(gates.mean):
            colour = plt.get_cmap("tab10")(number)
            axis.plot(maps, of_class[maps], color=colour, linewidth=0.6, label=CLASSES[number])
        axis.plot(maps, gates.mean.mean(0)[maps], color="black", linewidth=1, label="all")
        axis.set_title(name, fontsize=8)
        axis.set_ylim(0, 1)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.tick_params(labelsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("map", fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("gate", fontsize=8)
    handles, names = axes[0, 0].get_legend_handles_labels()
    deviations = [between for _, between, _ in (gates.summary() for gates in measured.values())]
    title = f"gates deviate by {deviations[0]:.3f} in the first block, {deviations[-1]:.3f} in the last"
    figure.suptitle(f"From class to class {title} ({SHOWN})", fontsize=9)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.legend(handles, names, loc="lower center", ncol=6, fontsize=7)
    return figure


def gates_within_classes(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Mean and standard deviation of the gates over the pictures of a class, for two classes, in each stage's last
    block, as in the paper's Fig. 7; of the published weights. The titles give how far the means lie apart."""
    measured = gates_of_published_weights(records, data)
    if measured is None:
        return None
    each = len(measured) // len(STAGES)
    figure, axes = plt.subplots(1, len(STAGES), figsize=(7.2, 2.6), sharey=True)
    for (name, gates), axis in zip(list(measured.items())[each - 1 :: each], axes, strict=True):
        maps = evenly_spaced(gates)
        for number, colour in zip(TWO, ("C0", "C1"), strict=True):
            mean, deviation = gates.mean[number][maps].numpy(), gates.deviation[number][maps].numpy()
            axis.plot(maps, mean, color=colour, linewidth=1, label=CLASSES[number])
            axis.fill_between(maps, mean - deviation, mean + deviation, color=colour, alpha=0.25, linewidth=0)
        apart = float((gates.mean[TWO[0]] - gates.mean[TWO[1]]).abs().mean())
        axis.set(xlabel="map", ylim=(0, 1))
        axis.set_title(f"{name}: {apart:.3f} apart", fontsize=8)
    axes[0].set_ylabel("gate: mean, ± standard deviation", fontsize=8)
    axes[0].legend(loc="lower left", fontsize=7)
    figure.tight_layout()
    return figure


def gates_of_published_weights(records: list[FinishedRecord], data: Data) -> dict[str, Gates] | None:
    """By the name of the block; None without the weights or without CIFAR-10."""
    record = next((r for r in records if r.variant == SHOWN and r.weights.file), None)
    located = data("cifar10")
    if record is None or located is None:
        return None
    from common.publishing.measure import recorded_recipe

    recipe = recorded_recipe(load_paper(record.paper), record)
    model = build_model(recipe)
    model.load_state_dict(load_weights(paths.ROOT / record.weights.file))
    cifar = load(located)
    standard = STANDARDS[recipe.standardisation](cifar.train_images)
    of_class = [(cifar.test_labels == number).nonzero()[:SAMPLES, 0] for number in range(len(CLASSES))]
    chosen = torch.cat(of_class)
    images, labels = on_device(cifar.test_images[chosen], "cpu"), cifar.test_labels[chosen]
    # In double precision, so that another machine draws the same picture.
    measured = gates_by_class(model.double(), images, labels, lambda part: standard(part).double())
    each = len(measured) // len(STAGES)
    names = [f"maps of {size}, block {block}" for size in STAGES.values() for block in range(1, each + 1)]
    return dict(zip(names, measured, strict=True))


def evenly_spaced(gates: Gates) -> np.ndarray:
    """The numbers of at most 50 maps."""
    count = gates.mean.shape[1]
    return np.unique(np.linspace(0, count - 1, min(SAMPLES, count)).round().astype(int))


FIGURES = {
    "error_against_iterations": error_against_iterations,
    "gates_by_depth": gates_by_depth,
    "gates_of_classes": gates_of_classes,
    "gates_within_classes": gates_within_classes,
}
