"""Measure HybridSN weights on the test pixels, and classify the whole scene.

bash reproduce.sh eval hybridsn --weights FILE
python -m papers.hybridsn.eval --weights FILE
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from common.base.errors import UsageError
from common.data.passports import LocatedData
from common.training.evaluation import Measured
from common.training.weights import fit_weights
from papers.hybridsn.data import (
    Scene,
    Split,
    Windows,
    apart_from,
    load,
    project,
    remaining,
    share_of_windows_with_training_pixels,
)
from papers.hybridsn.model import HybridSN
from papers.hybridsn.scoring import AT_ONCE, accuracies, confusion_matrix, predict
from papers.hybridsn.train import TRAINING_PIXELS, Recipe, axes_of, build_model, split_pixels, windows_of

LETTERS = "0123456789ABCDEFG"  # a map's classes; 0 means no class


def evaluate(weights: dict[str, Tensor], recipe: Recipe, data: LocatedData, device: str) -> Measured:
    """OA, AA and kappa on the test pixels, and a map of the scene.

    The test pixels follow from the training pixels, which come with the weights.

    Raises:
        UsageError: the weights belong to another model or another scene.
    """
    scene = load(data)
    split = split_of(weights, scene, recipe)
    model = fitted(weights, scene, recipe).to(device)
    everywhere = np.arange(scene.truth.size)
    predicted = predict(model, windows_of(scene, split, recipe, device), everywhere, device)
    label = scene.truth.flat[split.test]
    seen = share_of_windows_with_training_pixels(split, scene.truth.shape, recipe.window)
    return Measured(
        metrics={"last": {**accuracies(predicted[split.test], label), "seen_windows": seen}},
        details={
            "arrays": scene.arrays(),
            "classes": list(scene.classes),
            "confusion_matrix": confusion_matrix(predicted[split.test], label, len(scene.classes)),
            "classes_not_scored": [scene.classes[number - 1] for number in split.dropped],
            "predicted_map": as_letters(predicted.reshape(scene.truth.shape)),
        },
    )


def fitted(weights: dict[str, Tensor], scene: Scene, recipe: Recipe) -> HybridSN:
    """
    Raises:
        UsageError: the weights belong to another model.
    """
    model = build_model(scene, recipe)
    fit_weights(model, {name: weight for name, weight in weights.items() if name != TRAINING_PIXELS})
    return model


class Classifier(nn.Module):
    """A trained network that takes a whole scene as its file has it."""

    def __init__(self, network: HybridSN, axes: PCA, window: int):
        super().__init__()
        self.network = network
        self.axes = axes
        self.window = window

    @torch.no_grad()  # else it would keep the maps of every pixel: tens of gigabytes for a scene
    def forward(self, cube: Tensor) -> Tensor:
        """A scene (rows, columns, bands), on the CPU, or a part of it, to the logits of each pixel (rows, columns,
        classes), class 1 first; without gradients. Beyond its edge there are zeros, as in training."""
        windows = Windows(project(cube.numpy(), self.axes), self.window, "cpu")
        rows, columns, _ = cube.shape
        parts = torch.arange(rows * columns).split(AT_ONCE)
        return torch.cat([self.network(windows.around(part)) for part in parts]).unflatten(0, (rows, columns))


def predictor(weights: dict[str, Tensor], recipe: Recipe, training_data: Callable[[], LocatedData]) -> Classifier:
    """The network with these weights, for `load_pretrained`. The principal components are those of its own scene.

    Raises:
        UsageError: the weights belong to another model or another scene. DataError: the scene is unavailable.
    """
    scene = load(training_data())
    axes = axes_of(scene, split_of(weights, scene, recipe), recipe)
    return Classifier(fitted(weights, scene, recipe), axes, recipe.window)


def split_of(weights: dict[str, Tensor], scene: Scene, recipe: Recipe) -> Split:
    """
    Raises:
        UsageError: the weights come without training pixels, or with some that this scene or this recipe does not have.
    """
    if TRAINING_PIXELS not in weights:
        raise UsageError(f"These weights lack {TRAINING_PIXELS!r}: it is not known what they were trained on.")
    train = weights[TRAINING_PIXELS].numpy().astype(np.int64)
    labelled = np.flatnonzero(scene.truth)
    if train.ndim != 1 or not len(train) or not np.isin(train, labelled).all():
        raise UsageError("These weights were trained on pixels that are not labelled in this scene.")
    if recipe.protocol == "disjoint":
        split = apart_from(train, scene.truth, recipe.window)
        if not len(split.test):
            raise UsageError("These weights leave no pixel to test on: they were not trained on separate regions.")
        return split
    wanted = len(split_pixels(scene.truth, recipe, seed=0).train)
    if len(train) != wanted:
        raise UsageError(
            f"These weights were trained on {len(train):,} pixels, those of another variant: here it is {wanted:,}."
        )
    return remaining(train, scene.truth)


def as_letters(classes: np.ndarray) -> list[str]:
    """A map of classes (rows, columns) as one string for each row."""
    return ["".join(LETTERS[number] for number in row) for row in classes]


if __name__ == "__main__":
    from common.cli.commands import eval_paper_module

    eval_paper_module(__file__)
