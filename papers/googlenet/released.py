"""The weights for ImageNet that torchvision released: how its file is read.

They are of another network than the paper's, `torchvision` of `NETWORKS`, and were trained by another recipe.
"""

from pathlib import Path

import torch
from torch import Tensor

from common.training.weights import laid_out_as, with_batch_counts
from papers.googlenet.imagenet import MEAN, ImageNetRecipe, numbered
from papers.googlenet.model import from_torchvision, without_heads

MIDDLE = 127.5  # grey level: their network takes pixels from -1 to 1


def read(path: Path, recipe: ImageNetRecipe) -> dict[str, Tensor]:
    """The state of one network and the mean colour, for `evaluate`. What a grey level is worth is put into the first
    convolution.

    Raises:
        UsageError: the file is laid out in another way.
    """
    with laid_out_as(path, "torchvision's"):
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        state = without_heads(from_torchvision(theirs))
        state["conv1.0.weight"] = state["conv1.0.weight"] / (MIDDLE * recipe.grey_level)
    return {**numbered([with_batch_counts(state)]), MEAN: torch.full((3, 1, 1), MIDDLE)}
