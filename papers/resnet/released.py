"""The weights for ImageNet that torchvision released: how its files are read.

They were not trained by the paper's recipe, and from 50 layers on they are version 1.5. Their networks take grey levels
from 0 to 1, with means of 0 and deviations of 1; ours take them from 0 to 255 with means of 0, and have the rest of
that in the first convolution.
"""

from pathlib import Path

import torch
from torch import Tensor

from common.training.weights import laid_out_as, with_batch_counts
from papers.resnet.imagenet import MEAN, ImageNetRecipe

PEAK = 255
STAGES = {"layer1": "conv2_x", "layer2": "conv3_x", "layer3": "conv4_x", "layer4": "conv5_x"}
FIRST = {"conv1": "conv1.0", "bn1": "conv1.1"}
RESIDUAL = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4", "conv3": "6", "bn3": "7"}


def read(path: Path, recipe: ImageNetRecipe) -> dict[str, Tensor]:
    """The state of an `ImageNetResNet` and the mean colour, for `evaluate`.

    Raises:
        UsageError: the file is laid out in another way.
    """
    from torchvision.models import get_model_weights

    with laid_out_as(path, "torchvision's"):
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        state = {our_name(name): tensor for name, tensor in theirs.items()}
        prepared = get_model_weights(f"resnet{recipe.depth}").IMAGENET1K_V1.transforms()
        mean, deviation = (PEAK * torch.tensor(values) for values in (prepared.mean, prepared.std))
        state["conv1.0.weight"] = state["conv1.0.weight"] / deviation[:, None, None]
    return {**with_batch_counts(state), MEAN: mean}


def our_name(theirs: str) -> str:
    """Of a parameter or a moment."""
    part, *rest = theirs.split(".")
    if part in FIRST:
        return ".".join([FIRST[part], *rest])
    if part == "fc":
        return theirs
    block, layer, *rest = rest
    inside = ["shortcut", *rest] if layer == "downsample" else ["residual", RESIDUAL[layer], *rest]
    return ".".join([STAGES[part], block, *inside])
