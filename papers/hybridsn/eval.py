"""Measure HybridSN weights on the test pixels, and classify the whole scene.

bash reproduce.sh eval hybridsn --weights FILE
python -m papers.hybridsn.eval --weights FILE
"""

import numpy as np
from torch import Tensor

from common.base.errors import UsageError
from common.data.passports import LocatedData
from common.training.evaluation import Measured
from common.training.weights import fit_weights
from papers.hybridsn.data import Scene, Split, apart_from, load, remaining, share_of_windows_with_training_pixels
from papers.hybridsn.scoring import accuracies, confusion_matrix, predict
from papers.hybridsn.train import TRAINING_PIXELS, Recipe, build_model, split_pixels, windows_of

LETTERS = "0123456789ABCDEFG"  # a map's classes; 0 stands for no class


def evaluate(weights: dict[str, Tensor], recipe: Recipe, data: LocatedData, device: str) -> Measured:
    """OA, AA and kappa on the test pixels, and a map of the scene.

    The test pixels follow from the training pixels, which the weights bring along.

    Raises:
        UsageError: the weights are another model's or another scene's.
    """
    scene = load(data)
    split = split_of(weights, scene, recipe)
    model = build_model(scene, recipe)
    fit_weights(model, {name: weight for name, weight in weights.items() if name != TRAINING_PIXELS})
    model.to(device)
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


def split_of(weights: dict[str, Tensor], scene: Scene, recipe: Recipe) -> Split:
    """
    Raises:
        UsageError: no training pixels with the weights, or such as this scene or this recipe does not have.
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
            f"These weights were trained on {len(train):,} pixels, another variant's: here {wanted:,} train."
        )
    return remaining(train, scene.truth)


def as_letters(classes: np.ndarray) -> list[str]:
    """A map of classes (rows, columns) as one string for each row."""
    return ["".join(LETTERS[number] for number in row) for row in classes]


if __name__ == "__main__":
    from common.cli.commands import eval_paper_module

    eval_paper_module(__file__)
