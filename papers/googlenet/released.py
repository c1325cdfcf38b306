"""The weights for ImageNet that torchvision released: how its file is read.

They are of another network than the paper's, `torchvision` of `NETWORKS`, and were trained by another recipe.
"""

from pathlib import Path

import torch
from torch import Tensor

from common.base.errors import DAMAGED, UsageError
from papers.googlenet.imagenet import MEAN, ImageNetRecipe, numbered
from papers.googlenet.model import from_torchvision, without_heads

MIDDLE = 127.5  # grey level: their network takes pixels from -1 to 1


def read(path: Path, recipe: ImageNetRecipe) -> dict[str, Tensor]:
    """The state of one network and the mean colour, for `evaluate`. What a grey level is worth is put into the first
    convolution.

    Raises:
        UsageError: the file is laid out in another way.
    """
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        state = without_heads(from_torchvision(theirs))
        state["conv1.0.weight"] = state["conv1.0.weight"] / (MIDDLE * recipe.grey_level)
    except DAMAGED as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} is not laid out as torchvision's weights are ({reason}).") from None
    for name, tensor in list(state.items()):
        if name.endswith("running_mean"):  # older files do not count the batches
            state.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.zeros_like(tensor[0]).long())
    return {**numbered([state]), MEAN: torch.full((3, 1, 1), MIDDLE)}
