"""HybridSN (Roy, Krishna, Dubey, Chaudhuri, 2020), trained as printed, on two kinds of split.

The paper reports 99.75 % overall accuracy on Indian Pines when 30 % of the
labelled pixels, drawn at random, are for training (Table II). Nearly every test
window then holds training pixels; the `disjoint` variants keep them apart.
`Recipe` says field by field what is taken from the paper; so does the page in
README.md.

    bash reproduce.sh hybridsn
    python -m papers.hybridsn.train --variant indian_pines-disjoint --seeds 0
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pydantic.dataclasses
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.weights import copied
from common.training.winograd import use_winograd
from papers.hybridsn.ablations import Only2D, Only3D
from papers.hybridsn.data import (
    Scene,
    Split,
    Windows,
    disjoint_split,
    load,
    principal_axes,
    project,
    random_split,
)
from papers.hybridsn.model import HybridSN, initialise
from papers.hybridsn.scoring import accuracies, predict

if TYPE_CHECKING:  # scikit-learn takes longer to import than `--help` may last
    from sklearn.decomposition import PCA

DEVICES = ("cpu", "cuda")
NETWORKS = {"hybrid": HybridSN, "2d": Only2D, "3d": Only3D}
TRAINING_PIXELS = "training_pixels"  # kept with the weights, to know what is left to test on
# A batch goes through the network in parts that fit into a processor's cache; their gradients add up to the batch's.
WINDOWS_AT_ONCE = {"cpu": 32, "cuda": 256}

QUICK_EPOCHS, QUICK_SHARE = 10, 0.3  # of the labelled pixels; of fewer, more epochs


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class Recipe:
    """Everything that makes the numbers. 'Open' marks what the paper does not say."""

    protocol: Literal["random", "disjoint"] = "random"  # how pixels are split; Sec. III draws them at random
    training_share: Annotated[float, Field(gt=0, lt=1)] = 0.3  # of the labelled pixels; Sec. III-B, Table V, supplement
    # With 50 blocks on a side, those of Indian Pines are three pixels wide, far smaller than a window.
    blocks: Annotated[int, Field(ge=2, le=50)] = 4  # a disjoint split cuts the scene into 4 x 4 regions; ours
    components: int = 30  # principal components; Sec. III: 30 for Indian Pines, 15 for the others
    window: int = 25  # side of a window in pixels; Sec. III
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 100  # Sec. III
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 256  # Sec. III
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 0.001  # of Adam; Sec. III
    decay: Annotated[float, Field(ge=0)] = 0.0  # open: step t divides the rate by 1 + decay * t; authors' code: 1e-6
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-7  # open: Adam's epsilon; ours is that of Keras
    precision: Literal["fast", "float32"] = "fast"  # of the products; weights and sums are float32; ours
    network: Literal["hybrid", "2d", "3d"] = "hybrid"  # Table I; ours: one whose convolutions are all 2-D, or all 3-D

    def __post_init__(self) -> None:
        NETWORKS[self.network].check_sizes(self.window, self.components)


COMPONENTS = {"indian_pines": 30, "pavia_university": 15, "salinas": 15}
VARIANTS = {
    f"{scene}-{name}": Recipe(protocol, share, components=components)
    for scene, components in COMPONENTS.items()
    for name, protocol, share in (
        ("random30", "random", 0.3), ("random20", "random", 0.2), ("random10", "random", 0.1),
        ("random5", "random", 0.05), ("disjoint", "disjoint", 0.3),
    )
}  # fmt: skip
RANDOM10 = VARIANTS["indian_pines-random10"]
VARIANTS["indian_pines-random10-float32"] = replace(RANDOM10, precision="float32")
VARIANTS |= {f"indian_pines-random10-{network}": replace(RANDOM10, network=network) for network in ("2d", "3d")}


def recipe(variant: str, preset: str, standin: bool = False) -> Recipe:
    """The recipe of a variant under a preset; with the stand-in it is shorter whatever the preset."""
    full = VARIANTS[variant]
    if preset == "smoke":
        components = max(13, NETWORKS[full.network].smallest_bands)
        return replace(full, epochs=3, window=9, components=components, batch_size=128)
    if standin:
        return replace(full, epochs=8)
    if preset == "quick":  # as many updates whatever the share, since twenty teach a network nothing
        return replace(full, epochs=round(QUICK_EPOCHS * QUICK_SHARE / full.training_share))
    return full


def learning_rate(recipe: Recipe, step: int) -> float:
    """Adam's rate at an update, counted from 0."""
    return recipe.learning_rate / (1 + recipe.decay * step)


def split_pixels(truth: np.ndarray, recipe: Recipe, seed: int) -> Split:
    """The pixels for training and for testing under this recipe and seed."""
    if recipe.protocol == "random":
        return random_split(truth, recipe.training_share, seed)
    return disjoint_split(truth, recipe.training_share, recipe.window, recipe.blocks, seed)


def axes_of(scene: Scene, split: Split, recipe: Recipe) -> "PCA":
    """The principal components are those of all pixels under the paper's protocol, and of the training pixels under the
    disjoint one, which must not look at the others."""
    return principal_axes(scene.cube, recipe.components, None if recipe.protocol == "random" else split.train)


def windows_of(scene: Scene, split: Split, recipe: Recipe, device: str) -> Windows:
    """The windows of the reduced scene."""
    return Windows(project(scene.cube, axes_of(scene, split, recipe)), recipe.window, device)


def build_model(scene: Scene, recipe: Recipe) -> HybridSN:
    return NETWORKS[recipe.network](recipe.window, recipe.components, len(scene.classes))


@dataclass
class At:
    """What changes in training besides the network and the optimiser.

    The training accuracy is that of the windows as they come, with dropout, as in the authors' code, which keeps the
    weights of the epoch where it was best.
    """

    loss: float = 0.0  # summed over the epoch
    correct: int = 0  # so far in the epoch
    best_accuracy: float = -1.0
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def train(run: Run, recipe: Recipe) -> Trained:
    """A hundred epochs over the windows of the training pixels (Sec. III)."""
    scene = load(run.data)
    split = split_pixels(scene.truth, recipe, run.seed)
    windows = windows_of(scene, split, recipe, run.device)
    pixels = torch.from_numpy(split.train).to(run.device)
    labels = torch.from_numpy(scene.truth.flat[split.train] - 1).to(run.device)
    count = len(pixels)
    steps_per_epoch = -(-count // recipe.batch_size)

    model = build_model(scene, recipe)
    initialise(model, generator(run.seed, "initial weights"))
    model.to(run.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, eps=recipe.epsilon)
    precision = run.choose_precision(recipe.precision)
    run.note_compiled(use_winograd(model, precision))

    at = At()
    run.resume(at, model=model, optimiser=optimiser)
    for epoch in run.epochs(recipe.epochs, samples=count):
        order = torch.randperm(count, generator=generator(run.seed, "order", epoch)).to(run.device)
        model.train()
        for step, batch in run.steps(order.split(recipe.batch_size)):
            optimiser.param_groups[0]["lr"] = learning_rate(recipe, epoch * steps_per_epoch + step)
            draw = generator(run.seed, "dropout", epoch, step)
            loss, correct = gradients(model, windows, pixels[batch], labels[batch], draw, precision)
            run.require_finite(loss, f"the loss in epoch {epoch + 1}")
            optimiser.step()
            at.loss += loss
            at.correct += correct
            run.advance(len(batch))

        accuracy = 100 * at.correct / count
        if accuracy > at.best_accuracy:
            at.best_accuracy, at.best_weights = accuracy, copied(model)
        run.log(loss=at.loss / count, train_accuracy=accuracy)
        at.loss, at.correct = 0.0, 0

    last = copied(model)
    best_model = build_model(scene, recipe).to(run.device)  # without Winograd's convolutions, as eval.py measures
    best_model.load_state_dict(at.best_weights)
    best = predict(best_model, windows, split.test, run.device)
    return Trained(
        weights={**last, TRAINING_PIXELS: torch.from_numpy(split.train.astype(np.int32))},
        split=split.hash(),
        metrics={"best-train": accuracies(best, scene.truth.flat[split.test])},
    )


def gradients(
    model: HybridSN,
    windows: Windows,
    pixels: Tensor,
    labels: Tensor,
    draw: torch.Generator,
    precision: torch.dtype,
) -> tuple[float, int]:
    """Leave the gradient of a batch's mean cross-entropy in the model's parameters.

    Args:
        pixels, labels: (N,).
        draw: for dropout.

    Returns:
        The sum of the losses, and how many windows were classified correctly.
    """
    model.zero_grad()
    device = pixels.device.type
    losses, correct = 0.0, 0
    with torch.autocast(device, precision, enabled=precision != torch.float32):
        for part, label in zip(*(x.split(WINDOWS_AT_ONCE[device]) for x in (pixels, labels)), strict=True):
            logits = model(windows.around(part), draw).float()
            loss = F.cross_entropy(logits, label, reduction="sum")
            (loss / len(pixels)).backward()
            losses += loss.item()
            correct += int((logits.argmax(dim=1) == label).sum())
    return losses, correct


if __name__ == "__main__":
    from common.cli.commands import run_paper_module

    run_paper_module(__file__)
