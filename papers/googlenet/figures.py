"""The network from its own modules; gradients with and without the auxiliary heads; errors; the crops of a picture."""

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from common.data.image_folder import as_tensor
from common.data.photographs import shipped_photograph
from common.pages.figures import Data
from common.training.records import FinishedRecord
from papers.googlenet.crops import PROTOCOLS, cut_crops
from papers.googlenet.model import SIDE, GoogLeNet, Inception
from papers.googlenet.train import VARIANTS, trunk

GRADIENT = "gradient_"  # before a module's name, in the curves
SHOWN_EPOCHS = (1, 10, VARIANTS["flowers"].epochs)
PHOTOGRAPH = "coffee.png"
PLACES = ("top left", "top right", "bottom left", "bottom right", "centre", "whole square")  # those of a protocol

# The network's picture.
COLOURS = {"convolution": "#9dc3e6", "pooling": "#f4a6a6", "response norm": "#b5d9a8", "dense": "#f0d58c"}
HEAD = "#cdb9e0"
LAST_OF_A_ROW = ("inception_3b", "inception_4d", "linear")
BRANCHES = 4  # of an inception module, one above the other
WIDTH, HEIGHT, GAP = 0.86, 0.8, 0.44  # of a box, and between modules; a place is 1 by 1
FLOW = (BRANCHES - 1) / 2  # the height at which one module hands over to the next
ARROW = {"arrowstyle": "->", "color": "#555555", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}


def network(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The network of the paper's Fig. 3, drawn from the modules themselves: kernels, strides and filters; below each
    module what it gives for a picture of 224 pixels."""
    model = GoogLeNet(1000)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, SIDE, SIDE))
    parts = {name: module for name, module in model.named_children() if name != "heads"}
    figure, axes = plt.subplots(len(LAST_OF_A_ROW), 1, figsize=(9.6, 8))
    names = iter(parts)
    for axis, last in zip(axes, LAST_OF_A_ROW, strict=True):
        place, name = 0.0, ""
        while name != last:
            name = next(names)
            columns = _draw_module(axis, place, parts[name])
            if name != "conv1":
                axis.annotate("", (place - WIDTH / 2, FLOW), (place - WIDTH / 2 - GAP, FLOW), arrowprops=ARROW)
            middle = place + (columns - 1) / 2
            label = name.removeprefix("inception_").replace("_", " ")
            shape = "×".join(map(str, (*shapes[name][1:], shapes[name][0])))
            axis.text(middle, -0.65, f"{label}\n{shape}", ha="center", va="top", fontsize=6.5)
            if label in model.heads:
                _draw_head(axis, middle, model.heads[label])
            place += columns + GAP
        axis.set(xlim=(-0.9, 14.9), ylim=(-1.7, BRANCHES + 1.1))
        axis.axis("off")
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour) for colour in (*COLOURS.values(), HEAD)]
    figure.legend(handles, [*COLOURS, "auxiliary head"], loc="lower center", ncol=len(handles), fontsize=8)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.06, hspace=0.02)
    return figure


def _draw_module(axis: Axes, place: float, module: nn.Module) -> int:
    """Its boxes; how many stand side by side."""
    if not isinstance(module, Inception):
        _box(axis, place, FLOW, *_said_of(module))
        return 1
    children = dict(module.named_children())
    branches = [["conv_1x1"], ["reduce_3x3", "conv_3x3"], ["reduce_5x5", "conv_5x5"], ["pool", "pool_proj"]]
    for row, branch in enumerate(reversed(branches)):
        for column, name in enumerate(branch, start=2 - len(branch)):
            _box(axis, place + column, row, *_said_of(children[name]))
    return 2


def _draw_head(axis: Axes, place: float, head: nn.Module) -> None:
    layers = [_said_of(layer)[0] for layer in head.children()]
    axis.annotate("", (place, BRANCHES + 0.2), (place, BRANCHES - 0.6), arrowprops=ARROW)
    for number, text in enumerate(layers):
        _box(axis, place + number, BRANCHES + 0.6, text, HEAD)


def _box(axis: Axes, place: float, row: float, text: str, colour: str) -> None:
    corner = place - WIDTH / 2, row - HEIGHT / 2
    axis.add_patch(Rectangle(corner, WIDTH, HEIGHT, facecolor=colour, edgecolor="#555555", linewidth=0.5))
    axis.text(place, row, text, ha="center", va="center", fontsize=6)


def _said_of(module: nn.Module) -> tuple[str, str]:
    """What stands in a module's box, and the box's colour."""
    layer = module[0] if isinstance(module, nn.Sequential) else module
    if isinstance(layer, nn.Conv2d):
        side, stride = layer.kernel_size[0], layer.stride[0]
        return f"{side}×{side}{_by(stride)}\n{layer.out_channels}", COLOURS["convolution"]
    if isinstance(layer, nn.Linear):
        return f"dense\n{layer.out_features}", COLOURS["dense"]
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        kind = "max" if isinstance(layer, nn.MaxPool2d) else "mean"
        return f"{kind}\n{layer.kernel_size}×{layer.kernel_size}{_by(layer.stride)}", COLOURS["pooling"]
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return "mean\nof all", COLOURS["pooling"]
    return "LRN", COLOURS["response norm"]


def _by(stride: int) -> str:
    return f"/{stride}" if stride > 1 else ""


def gradient_norms(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Norm of the loss's gradient in every module, first to last, mean over some epochs; mean over the seeds, and the
    range of them."""
    groups = _by_variant(records)
    if not groups:
        return None
    modules = list(trunk(GoogLeNet(1)))  # records have their curves sorted by name
    figure, axes = plt.subplots(1, len(SHOWN_EPOCHS), figsize=(9.5, 3.8), sharey=True)
    for axis, epoch in zip(axes, SHOWN_EPOCHS, strict=True):
        for variant, group in groups.items():
            norms = np.array([[record.curves[GRADIENT + name][epoch - 1] for name in modules] for record in group])
            places = np.arange(len(modules))
            axis.plot(places, norms.mean(axis=0), marker=".", label=f"{variant}, mean of {len(group)}")
            axis.fill_between(places, norms.min(axis=0), norms.max(axis=0), alpha=0.2)
        labels = [name.removeprefix("inception_").replace("_", " ") for name in modules]
        axis.set_xticks(places, labels, rotation=90, fontsize=7)
        axis.set(title=f"epoch {epoch}", yscale="log")
    axes[0].set_ylabel("norm of the gradient")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncol=len(groups), fontsize=8)
    in_first = {variant: [r.curves[GRADIENT + modules[0]] for r in group] for variant, group in groups.items()}
    means = [f"{np.mean(norms):.2g} ({variant})" for variant, norms in in_first.items()]
    figure.suptitle(f"Mean norm in {modules[0]}: {', '.join(means)}", fontsize=10)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return figure


def error_against_epochs(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Training error (dashed), of the patches as they come, and test error (bold) with one crop, of every seed."""
    groups = _by_variant(records)
    if not groups:
        return None
    figure, axis = plt.subplots(figsize=(7.2, 3.4))
    for number, (variant, group) in enumerate(groups.items()):
        for record in group:
            epochs = range(1, len(record.curves["loss"]) + 1)
            look = {"color": f"C{number}", "alpha": 0.8}
            axis.plot(epochs, record.curves["train_error"], linestyle="--", linewidth=0.6, **look)
            label = variant if record is group[0] else None
            axis.plot(epochs, record.curves["test_error"], linewidth=1.3, label=label, **look)
    ends = [f"{np.mean([r.curves['test_error'][-1] for r in group]):.1f} % ({name})" for name, group in groups.items()]
    axis.set_title(f"Test error ends at {', '.join(ends)}", fontsize=9)
    axis.set(xlabel="epoch", ylabel="error (%): test bold, training dashed")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7)
    figure.tight_layout()
    return figure


def crops_of_a_picture(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The 144 crops of Sec. 7: in a row one square of one scale (left, centre, right), in a column one place in it,
    plain and mirrored."""
    protocol = PROTOCOLS[144]
    crops = cut_crops(as_tensor(shipped_photograph(PHOTOGRAPH)), SIDE, protocol).permute(0, 2, 3, 1).numpy()
    columns = len(protocol.places) * len(protocol.mirrored)
    rows = len(crops) // columns
    figure, grid = plt.subplots(rows, columns, figsize=(7.2, 7.2 * rows / columns))
    for axis, crop in zip(grid.flat, crops, strict=True):
        axis.imshow(crop)
        axis.axis("off")
    figure.subplots_adjust(left=0.035, right=0.995, top=0.975, bottom=0.01, wspace=0.08, hspace=0.08)
    for number, place in enumerate(PLACES):
        first, last = grid[0, 2 * number], grid[0, 2 * number + 1]
        middle = (first.get_position().x0 + last.get_position().x1) / 2
        figure.text(middle, 0.982, place, ha="center", fontsize=7)
    squares = len(protocol.squares)
    for number, scale in enumerate(protocol.scales):
        middle = 1 - (number + 0.5) / len(protocol.scales)
        figure.text(
            0.012, 0.01 + 0.965 * middle, f"{scale} pixels, {squares} squares", rotation=90, va="center", fontsize=7
        )
    return figure


def _by_variant(records: list[FinishedRecord]) -> dict[str, list[FinishedRecord]]:
    """Those of the flowers, in the order of the variants."""
    return {v: group for v in VARIANTS if (group := [record for record in records if record.variant == v])}


FIGURES = {
    "network": network,
    "gradient_norms": gradient_norms,
    "error_against_epochs": error_against_epochs,
    "crops_of_a_picture": crops_of_a_picture,
}
