"""The scene, its ground truth and its maps (the paper's Figure 3); both kinds of split; training."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from common.pages.figures import Data
from common.training.records import FinishedRecord
from papers.hybridsn.data import Scene, Split, load, share_of_windows_with_training_pixels
from papers.hybridsn.eval import LETTERS
from papers.hybridsn.train import VARIANTS, Recipe, split_pixels

DATASET = "indian_pines"
RANDOM, RANDOM10, DISJOINT = "indian_pines-random30", "indian_pines-random10", "indian_pines-disjoint"
FALSE_COLOUR = (49, 26, 16)  # near infrared, red, green, as bands of the corrected cube
UNLABELLED = "#ffffff"
TRAINS, TESTS, LEFT_OUT = "#d1495b", "#0b3c5d", "#ecd9a0"
RIGHT, WRONG = "#8fb8d4", "#b2182b"


def scene_and_maps(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Indian Pines in false colours and its ground truth, as in the paper's Fig. 3; below, for each kind of split that
    was measured, what the network of the first seed takes all pixels for, and which test pixels it gets wrong."""
    scene, groups = _scene_and_groups(records, data, (RANDOM, DISJOINT))
    if scene is None or not groups:
        return None
    shown = [group[0] for group in groups.values()]
    figure, axes = plt.subplots(1 + len(shown), 2, figsize=(7.2, 3.5 * (1 + len(shown))), squeeze=False)
    _picture(axes[0, 0], false_colours(scene), "false colours")
    _picture(axes[0, 1], in_colours(scene.truth, scene), "ground truth")
    for row, record in zip(axes[1:], shown, strict=True):
        classes = as_classes(record.details["predicted_map"])
        tested = _split(scene, record).test
        wrong = tested[classes.flat[tested] != scene.truth.flat[tested]]
        name = f"{_short(record.variant)}, seed {record.seed}"
        _picture(row[0], in_colours(classes, scene), f"{name}: all pixels")
        _picture(row[1], errors_on_scene(scene, tested, wrong), f"{name}: {len(wrong):,} of {len(tested):,} wrong")
    colours = _palette(len(scene.classes))
    handles = [Patch(color=colours[number], label=name) for number, name in enumerate(scene.classes, start=1)]
    handles += [Patch(color=WRONG, label="tested, wrong"), Patch(color=RIGHT, label="tested, right")]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.06), ncol=4, fontsize=7)
    figure.subplots_adjust(hspace=0.12, wspace=0.04, bottom=0.07)
    accuracies = " and ".join(f"{record.metrics['last']['oa']:.1f} % ({_short(record.variant)})" for record in shown)
    top = 0.88 + 0.45 / figure.get_figheight()  # above the titles of the first row
    figure.suptitle(f"Right for {accuracies} of the test pixels", fontsize=10, y=top)
    return figure


def splits(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Which pixels of Indian Pines train and which test: drawn at random, and in separate regions, which each seed
    draws anew. Above each picture how many of the test windows hold training pixels."""
    scene, _ = _scene_and_groups(records, data, ())
    if scene is None:
        return None
    figure, axes = plt.subplots(1, 4, figsize=(9.6, 3.1))
    shares: dict[str, list[float]] = {RANDOM: [], DISJOINT: []}
    for axis, (variant, seed) in zip(axes, [(RANDOM, 0), *((DISJOINT, seed) for seed in range(3))], strict=True):
        split = split_pixels(scene.truth, VARIANTS[variant], seed)
        window = VARIANTS[variant].window
        shares[variant].append(share_of_windows_with_training_pixels(split, scene.truth.shape, window))
        _picture(axis, split_on_scene(scene, split), f"{_short(variant)}, seed {seed}: {shares[variant][-1]:.0f} %")
    handles = [
        Patch(color=TRAINS, label="trains"),
        Patch(color=TESTS, label="tests"),
        Patch(color=LEFT_OUT, label="labelled, neither: too near, or its class is on one side only"),
    ]
    figure.legend(handles=handles, loc="lower center", ncol=3, fontsize=8)
    random, disjoint = (max(of) for of in shares.values())
    title = f"{random:.0f} % of the test windows hold training pixels where those are drawn at random"
    figure.suptitle(f"{title}, {disjoint:.0f} % in separate regions", fontsize=10, y=0.98)
    figure.subplots_adjust(wspace=0.06, bottom=0.1, top=0.92)
    return figure


def training_curves(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Loss and training accuracy after each epoch, counted with dropout as the windows come: the mean of each variant's
    seeds, and bands from the least to the most."""
    if not records:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), layout="constrained")
    kinds = sorted({(record.variant, record.data.edition) for record in records})
    ends = []
    for number, (variant, edition) in enumerate(kinds):
        group = [record for record in records if (record.variant, record.data.edition) == (variant, edition)]
        for axis, curve in zip(axes, ("loss", "train_accuracy"), strict=True):
            values = np.array([record.curves[curve] for record in group])
            epochs = np.arange(1, values.shape[1] + 1)
            color = _colour(variant) if len({edition for _, edition in kinds}) == 1 else f"C{number}"
            axis.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.25, linewidth=0)
            label = f"{variant} ({edition}), mean of {len(group)}"
            axis.plot(epochs, values.mean(axis=0), color=color, linewidth=1, label=label)
        ends.append(values[:, -1].mean())
    axes[0].set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
    axes[1].set(xlabel="epoch", ylabel="training accuracy (%)", ylim=(0, 101))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
    figure.suptitle(f"Training accuracy ends at {min(ends):.1f} % or more", fontsize=10)
    return figure


def per_class(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The accuracy of each class of Indian Pines for each split that was measured, mean over the seeds that score it;
    beside its name how many of its pixels are labelled."""
    scene, groups = _scene_and_groups(records, data, (RANDOM, RANDOM10, DISJOINT))
    if scene is None or not groups:
        return None
    figure, axis = plt.subplots(figsize=(7.2, 2.4 + 1.2 * len(groups)))
    axis.set_axisbelow(True)
    axis.grid(False, axis="y")
    height = 0.8 / len(groups)
    averages = []
    for number, (variant, group) in enumerate(groups.items()):
        matrices = np.array([record.details["confusion_matrix"] for record in group])
        support, right = matrices.sum(axis=2), matrices.diagonal(axis1=1, axis2=2)
        accuracy = np.ma.masked_invalid(
            100 * np.divide(right, support, where=support > 0, out=np.full(right.shape, np.nan))
        )
        mean = accuracy.mean(axis=0)
        places = np.arange(len(scene.classes)) + number * height
        label = f"{_short(variant)}, mean of {len(group)} seeds"
        axis.barh(places, mean.filled(0), height, color=_colour(variant), label=label)
        for place, value in zip(places, mean, strict=True):
            text = "not scored" if value is np.ma.masked else f"{value:.1f}"
            axis.text((0 if value is np.ma.masked else value) + 1, place, text, va="center", fontsize=6)
        averages.append(f"{np.mean([record.metrics['last']['aa'] for record in group]):.1f} % ({_short(variant)})")
    names = [f"{name} ({(scene.truth == number).sum():,})" for number, name in enumerate(scene.classes, start=1)]
    axis.set(yticks=np.arange(len(scene.classes)) + 0.4 - height / 2, yticklabels=names, xlim=(0, 112))
    axis.set_xlabel("accuracy (%)", fontsize=8)
    axis.tick_params(axis="y", labelsize=7)
    axis.margins(y=0.01)
    axis.invert_yaxis()
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.1), ncol=3, fontsize=7)
    figure.suptitle(f"Average over the classes: {', '.join(averages)}", fontsize=10, y=0.99)
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
    return _on_scene(scene, {LEFT_OUT: np.flatnonzero(scene.truth), TRAINS: split.train, TESTS: split.test})


def errors_on_scene(scene: Scene, tested: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The scene in grey, with the test pixels that are right and those that are wrong in colour. (rows, columns, 3)."""
    return _on_scene(scene, {RIGHT: tested, WRONG: wrong})


def _on_scene(scene: Scene, pixels: dict[str, np.ndarray]) -> np.ndarray:
    """The scene in grey, with some pixels in colours, the last one on top. (rows, columns, 3), 0 to 1."""
    grey = 0.75 + 0.25 * false_colours(scene).mean(axis=2, keepdims=True)
    picture = np.repeat(grey, 3, axis=2)
    for colour, places in pixels.items():
        picture.reshape(-1, 3)[places] = _rgb([colour])[0]
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


def _colour(variant: str) -> tuple:
    """The same in every figure; the strong colours for this scene's variants."""
    number = sorted(VARIANTS, key=lambda name: not name.startswith(DATASET)).index(variant)
    return plt.get_cmap("tab20")(2 * number % 20 + number // 10)


def _short(variant: str) -> str:
    return variant.removeprefix(f"{DATASET}-")


# ---- what is there -------------------------------------------------------------------------


def _split(scene: Scene, record: FinishedRecord) -> Split:
    """Which pixels a record was trained and tested on."""
    return split_pixels(scene.truth, Recipe(**record.recipe), record.seed)


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
