"""The scene, its ground truth and its maps (the paper's Figure 3); both kinds of split; training."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from common.pages.figures import Data
from common.training.records import FinishedRecord
from papers.hybridsn.data import Scene, Split, load
from papers.hybridsn.eval import LETTERS
from papers.hybridsn.train import VARIANTS, split_pixels

DATASET = "indian_pines"
RANDOM, RANDOM10, DISJOINT = "indian_pines-random30", "indian_pines-random10", "indian_pines-disjoint"
FALSE_COLOUR = (49, 26, 16)  # near infrared, red, green, as bands of the corrected cube
UNLABELLED = "#ffffff"
TRAINS, TESTS, LEFT_OUT = "#d1495b", "#0b3c5d", "#ecd9a0"


def scene_and_maps(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The scene in false colours, the ground truth, and what the network of the first seed predicts for the
    labelled pixels and for all, under both protocols."""
    scene, groups = _scene_and_groups(records, data, (RANDOM, DISJOINT))
    if scene is None or not groups:
        return None
    shown = [group[0] for group in groups.values()]
    figure, axes = plt.subplots(1 + len(shown), 2, figsize=(7.2, 3.5 * (1 + len(shown))), squeeze=False)
    _picture(axes[0, 0], false_colours(scene), "false colours")
    _picture(axes[0, 1], in_colours(scene.truth, scene), "ground truth")
    for row, record in zip(axes[1:], shown, strict=True):
        classes = as_classes(record.details["predicted_map"])
        name = record.variant.removeprefix(f"{DATASET}-")
        labelled = np.where(scene.truth > 0, classes, 0)
        _picture(row[0], in_colours(labelled, scene), f"{name}, seed {record.seed}: labelled pixels")
        _picture(row[1], in_colours(classes, scene), f"{name}, seed {record.seed}: all pixels")
    colours = _palette(len(scene.classes))
    handles = [Patch(color=colours[number], label=name) for number, name in enumerate(scene.classes, start=1)]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.06), ncol=4, fontsize=7)
    figure.subplots_adjust(hspace=0.12, wspace=0.04, bottom=0.07)
    return figure


def splits(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Which pixels are for training and which for testing: drawn at random, and in separate regions for each seed."""
    scene, _ = _scene_and_groups(records, data, ())
    if scene is None:
        return None
    shown = [(RANDOM, 0), *((DISJOINT, seed) for seed in range(3))]
    figure, axes = plt.subplots(1, len(shown), figsize=(2.4 * len(shown), 2.9))
    for axis, (variant, seed) in zip(axes, shown, strict=True):
        split = split_pixels(scene.truth, VARIANTS[variant], seed)
        _picture(axis, split_on_scene(scene, split), f"{variant.removeprefix(f'{DATASET}-')}, seed {seed}")
    handles = [
        Patch(color=TRAINS, label="trains"),
        Patch(color=TESTS, label="tests"),
        Patch(color=LEFT_OUT, label="labelled, neither: too near, or its class is on one side only"),
    ]
    figure.legend(handles=handles, loc="lower center", ncol=3, fontsize=8)
    figure.subplots_adjust(wspace=0.06, bottom=0.12)
    return figure


def training_curves(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Loss and training accuracy of every seed and epoch, with dropout, as the windows come."""
    if not records:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.0))
    kinds = sorted({(record.variant, record.data.edition) for record in records})
    palette = plt.get_cmap("tab10" if len(kinds) <= 10 else "tab20")
    colours = {kind: palette(number % palette.N) for number, kind in enumerate(kinds)}
    labelled = set()
    for record in sorted(records, key=lambda record: record.seed):
        kind = (record.variant, record.data.edition)
        label = None if kind in labelled else f"{record.variant} ({record.data.edition})"
        labelled.add(kind)
        for axis, curve in zip(axes, ("loss", "train_accuracy"), strict=True):
            values = record.curves[curve]
            axis.plot(range(1, len(values) + 1), values, color=colours[kind], linewidth=0.8, alpha=0.8, label=label)
    axes[0].set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
    axes[1].set(xlabel="epoch", ylabel="training accuracy (%)", ylim=(0, 101))
    axes[1].legend(loc="lower right", fontsize=7)
    figure.tight_layout()
    return figure


def per_class(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The accuracy of each class under each protocol, mean over the seeds, with the number of test pixels behind it."""
    scene, groups = _scene_and_groups(records, data, (RANDOM, RANDOM10, DISJOINT))
    if scene is None or not groups:
        return None
    figure, axis = plt.subplots(figsize=(7.2, 2.4 + 1.2 * len(groups)))
    axis.set_axisbelow(True)
    axis.grid(False, axis="y")
    height = 0.8 / len(groups)
    for number, (variant, group) in enumerate(groups.items()):
        matrices = np.array([record.details["confusion_matrix"] for record in group])
        support = matrices.sum(axis=2)
        right = matrices.diagonal(axis1=1, axis2=2)
        with np.errstate(invalid="ignore"):
            accuracy = 100 * np.where(support > 0, right / support, np.nan)
        places = np.arange(len(scene.classes)) + number * height
        scored = (support > 0).any(axis=0)
        mean = np.array([np.nanmean(column) if some else 0.0 for column, some in zip(accuracy.T, scored, strict=True)])
        label = f"{variant.removeprefix(f'{DATASET}-')}, mean of {len(group)} seeds"
        axis.barh(places, mean, height, color=f"C{number}", label=label)
        for place, value, some, counts in zip(places, mean, scored, support.T, strict=True):
            text = f"{counts[counts > 0].mean():.0f}" if some else "not scored"
            axis.text(value + 1, place, text, va="center", fontsize=6)
    axis.set(yticks=np.arange(len(scene.classes)) + 0.4 - height / 2, yticklabels=scene.classes, xlim=(0, 112))
    axis.set_xlabel("accuracy (%); beside it the test pixels, mean over the seeds that score the class", fontsize=8)
    axis.tick_params(axis="y", labelsize=7)
    axis.invert_yaxis()
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncol=3, fontsize=7)
    return figure


# ---- pictures from arrays ----------------------------------------------------------------


def false_colours(scene: Scene) -> np.ndarray:
    """Three bands as red, green and blue, each from its 2nd to its 98th percentile. (rows, columns, 3), 0 to 1."""
    bands = scene.cube[:, :, FALSE_COLOUR].astype(float)
    low, high = np.percentile(bands, (2, 98), axis=(0, 1))
    return ((bands - low) / (high - low)).clip(0, 1)


def as_classes(rows: list[str]) -> np.ndarray:
    """A map, as records keep it, to classes (rows, columns)."""
    return np.array([[LETTERS.index(letter) for letter in row] for row in rows])


def in_colours(classes: np.ndarray, scene: Scene) -> np.ndarray:
    """Classes (rows, columns), 0 for none, to colours (rows, columns, 3)."""
    return _rgb(_palette(len(scene.classes)))[classes]


def split_on_scene(scene: Scene, split: Split) -> np.ndarray:
    """The scene in grey, with the training and the test pixels in colour. (rows, columns, 3), 0 to 1."""
    grey = 0.75 + 0.25 * false_colours(scene).mean(axis=2, keepdims=True)
    picture = np.repeat(grey, 3, axis=2)
    left_out, trains, tests = _rgb([LEFT_OUT, TRAINS, TESTS])
    picture[scene.truth > 0] = left_out
    for pixels, colour in ((split.train, trains), (split.test, tests)):
        picture.reshape(-1, 3)[pixels] = colour
    return picture


def _palette(classes: int) -> list:
    """A colour for no class, then one for each."""
    return [UNLABELLED, *plt.get_cmap("tab20")(np.arange(classes))]


def _rgb(colours: list) -> np.ndarray:
    from matplotlib.colors import to_rgb

    return np.array([to_rgb(colour) for colour in colours])


def _picture(axis: Axes, picture: np.ndarray, title: str) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_title(title, fontsize=8)
    axis.axis("off")


# ---- what is there -------------------------------------------------------------------------


def _scene_and_groups(
    records: list[FinishedRecord], data: Data, variants: tuple[str, ...]
) -> tuple[Scene | None, dict[str, list[FinishedRecord]]]:
    """The scene that is there, and the records of these variants that were measured on this edition of it, by seed."""
    located = data(DATASET)
    if located is None:
        return None, {}
    ours = sorted((r for r in records if r.data.edition == located.edition), key=lambda record: record.seed)
    groups = {variant: [r for r in ours if r.variant == variant] for variant in variants}
    return load(located), {variant: group for variant, group in groups.items() if group}


FIGURES = {
    "scene_and_maps": scene_and_maps,
    "splits": splits,
    "per_class": per_class,
    "training_curves": training_curves,
}
