"""The paper's Figure 2 again (PSNR against epochs), PSNR against noise level, and Set12 before and after."""

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from common.base import paths
from common.claims.papers import load_paper
from common.pages.figures import Data
from common.training.records import FinishedRecord
from common.training.weights import load_weights
from papers.dncnn.data import load
from papers.dncnn.matlab_noise import randn
from papers.dncnn.noisy_sets import labels_of
from papers.dncnn.scores import PEAK, to_8bit
from papers.dncnn.train import PAPER_SIGMAS, build_model

SHOWN = ("sigma25-authors", "sigma25-hour")  # the first whose weights are published
SIGMA = 25
CROP = 96  # pixels of a Set12 picture that are shown
SET12 = ("C.man", "House", "Peppers", "Starfish", "Monarch", "Airplane", "Parrot", "Lena", "Barbara", "Boat", "Man",
         "Couple")  # fmt: skip
BM3D = {15.0: 31.07, 25.0: 28.57, 50.0: 25.62}  # as the paper reports it, BSD68
FIGURE_2 = {  # its networks
    "residual-bn": ("C0", "-", "residual, batch normalization"),
    "residual-no-bn": ("C0", "--", "residual"),
    "direct-bn": ("C3", "-", "batch normalization"),
    "direct-no-bn": ("C3", "--", "neither"),
}
STYLES = {"authors": ("C0", "-", "Adam, the authors' code"), "printed": ("C1", "--", "SGD, as printed")}


def psnr_against_epochs(records: list[FinishedRecord], data: Data) -> Figure | None:
    """PSNR on BSD68 at noise level 25 after each epoch, every seed thin and their mean bold, by either recipe."""
    found = {recipe: _curves(records, f"sigma{SIGMA}-{recipe}") for recipe in STYLES}
    found = {recipe: curves for recipe, curves in found.items() if len(curves)}
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for recipe, curves in found.items():
        color, line, label = STYLES[recipe]
        epochs, seeds = np.arange(1, curves.shape[1] + 1), len(curves)
        axes.plot(epochs, curves.T, color=color, linestyle=line, linewidth=0.6, alpha=0.4)
        text = f"{label}, mean of {seeds} seeds" if seeds > 1 else f"{label}, 1 seed"
        axes.plot(epochs, curves.mean(axis=0), color=color, linestyle=line, linewidth=1.6, label=text)
    reported = _reported(f"sigma{SIGMA}-authors", SIGMA)
    axes.axhline(reported, color="black", linewidth=0.8, linestyle=":")
    axes.text(epochs[-1], reported, f"paper: {reported} dB", va="bottom", ha="right", fontsize=8)
    ends = [curves[:, -1].min() for curves in found.values()]  # beginnings may lie below the figure
    axes.set(xlabel="epoch", ylabel="PSNR on BSD68 (dB)", ylim=(min(reported - 2, min(ends) - 0.2), reported + 0.2))
    means = [f"{curves[:, -1].mean():.2f} dB ({recipe})" for recipe, curves in found.items()]
    axes.set_title(f"Noise level {SIGMA}: ends at {' and '.join(means)}", fontsize=10)
    axes.legend(loc="lower right")
    return figure


def figure_2_in_short(records: list[FinishedRecord], data: Data) -> Figure | None:
    """Fig. 2 by our short recipe: PSNR on BSD68 at noise level 25 after each epoch, by SGD and by Adam, with and
    without residual learning and batch normalization; means over the seeds."""
    panels = {"sgd": "(a) SGD", "adam": "(b) Adam"}
    found = {(by, kind): _curves(records, f"fig2-{by}-{kind}") for by in panels for kind in FIGURE_2}
    if not any(map(len, found.values())):
        return None
    figure, axes = plt.subplots(1, len(panels), figsize=(7.2, 3.4), sharey=True)
    for axis, (by, title) in zip(axes, panels.items(), strict=True):
        for kind, (color, line, label) in FIGURE_2.items():
            curves = found[by, kind]
            if len(curves):
                epochs = np.arange(1, curves.shape[1] + 1)
                axis.plot(epochs, curves.mean(axis=0), color=color, linestyle=line, marker=".", label=label)
                axis.set_xticks(epochs)
        axis.set(title=title, xlabel="epoch")
    axes[0].set_ylabel("PSNR on BSD68 (dB)")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncol=len(FIGURE_2), fontsize=8)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    return figure


def psnr_against_sigma(records: list[FinishedRecord], data: Data) -> Figure | None:
    """What one network for each noise level (S) and one for all (B) gain over BM3D on BSD68, trained as in the authors'
    code; bars span the seeds, where they are wider than the mark."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    gains: list[float] = []
    for name, blind, color, aside in (
        ("DnCNN-S, one for each level", False, "C0", -0.6),  # side by side where they would hide each other
        ("DnCNN-B, one network", True, "C1", 0.6),
    ):
        variants = {level: "blind-authors" if blind else f"sigma{level:g}-authors" for level in PAPER_SIGMAS}
        paper = [_reported(variant, level) - BM3D[level] for level, variant in variants.items()]
        axes.plot(np.add(PAPER_SIGMAS, aside), paper, "_:", color=color, markersize=20, label=f"{name}: paper")
        found = {level: _measured(records, variant, level) - BM3D[level] for level, variant in variants.items()}
        found = {level: seeds for level, seeds in found.items() if len(seeds)}
        if found:
            means = [seeds.mean() for seeds in found.values()]
            gains += means
            reach = np.abs([[end(seeds) for seeds in found.values()] for end in (np.min, np.max)] - np.array(means))
            style = {"fmt": "s" if blind else "o", "color": color, "capsize": 4, "label": f"{name}: here"}
            axes.errorbar(np.add(list(found), aside), means, reach, **style)
    if not axes.containers:
        plt.close(figure)
        return None
    axes.set(xlabel="noise level", ylabel="PSNR on BSD68, above BM3D (dB)", xticks=PAPER_SIGMAS)
    axes.set_title(f"As measured here, DnCNN gains {min(gains):.2f} to {max(gains):.2f} dB over BM3D", fontsize=10)
    axes.margins(y=0.15)
    axes.legend()
    return figure


def set12_before_and_after(records: list[FinishedRecord], data: Data) -> Figure | None:
    """The middle of each Set12 picture at noise level 25: noisy, denoised by published weights (the title
    says whose), and clean. PSNR is that of the whole picture."""
    record = next((r for variant in SHOWN for r in records if r.variant == variant and r.weights.file), None)
    located = data("bsd")
    if located is None or record is None:
        return None
    from common.publishing.measure import recorded_recipe

    recipe = recorded_recipe(load_paper(record.paper), record)
    model = build_model(recipe)
    model.load_state_dict(load_weights(paths.ROOT / record.weights.file))
    model = model.double().eval()  # exact enough for another machine to draw the same picture
    labels = labels_of(load(located).tests["set12"].values(), recipe.channels)

    columns = 2
    figure, axes = plt.subplots(-(-len(labels) // columns), 3 * columns, figsize=(7.2, 8.6), squeeze=False)
    groups = [row[3 * k : 3 * k + 3] for row in axes for k in range(columns)]
    for number, (label, (left, middle, right)) in enumerate(zip(labels, groups, strict=True)):
        noisy = label + SIGMA * randn(label.shape)
        shown = _middle(noisy), _middle(_denoised(model, noisy, recipe.depth)), _middle(label)
        quality = record.metrics[f"set12-{number + 1:02d}-sigma{SIGMA}"]["psnr"]
        titles = f"noisy, {20 * np.log10(PEAK / SIGMA):.2f} dB", f"denoised, {quality:.2f} dB", SET12[number]
        for axis, part, title in zip((left, middle, right), shown, titles, strict=True):
            axis.imshow(part.clamp(0, PEAK)[0].numpy(), cmap="gray", vmin=0, vmax=PEAK)
            axis.set_title(title, fontsize=7, pad=2)
            axis.axis("off")
    figure.subplots_adjust(wspace=0.04, hspace=0.16)
    before, after = 20 * np.log10(PEAK / SIGMA), record.metrics[f"set12-sigma{SIGMA}"]["psnr"]
    title = f"Noise level {SIGMA}: from {before:.2f} to {after:.2f} dB on Set12 ({record.variant}, seed {record.seed})"
    figure.suptitle(title, fontsize=10, y=0.92)
    return figure


def _denoised(model, noisy: torch.Tensor, depth: int) -> torch.Tensor:
    """Only the middle and what it depends on is computed. Values 0 to 255, rounded."""
    part = _middle(noisy, margin=depth)[None].double() / PEAK
    with torch.no_grad():
        return to_8bit(part - model(part))[0]


def _middle(picture: torch.Tensor, margin: int = 0) -> torch.Tensor:
    side = CROP + 2 * margin
    top, left = ((length - side) // 2 for length in picture.shape[1:])
    return picture[:, top : top + side, left : left + side]


def _curves(records: list[FinishedRecord], variant: str) -> np.ndarray:
    """PSNR after each epoch, a row for each seed."""
    return np.array([record.curves["psnr"] for record in records if record.variant == variant])


def _reported(variant: str, sigma: float) -> float:
    claims = load_paper("dncnn").claims
    return next(c.value for c in claims if c.variant == variant and c.protocol == f"bsd68-sigma{sigma:g}")


def _measured(records: list[FinishedRecord], variant: str, sigma: float) -> np.ndarray:
    """The mean PSNR on BSD68 of every seed."""
    return np.array([r.metrics[f"bsd68-sigma{sigma:g}"]["psnr"] for r in records if r.variant == variant])


FIGURES = {
    "psnr_against_epochs": psnr_against_epochs,
    "figure_2_in_short": figure_2_in_short,
    "psnr_against_sigma": psnr_against_sigma,
    "set12_before_and_after": set12_before_and_after,
}
