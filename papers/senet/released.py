"""The weights for ImageNet that the authors released, as timm has them: how its files are read.

Their networks take grey levels from 0 to 1, with means of 0 and deviations of 1; ours take them from 0 to 255 with
means of 0, and have the rest of that in the first convolution. Their blocks have 1x1 convolutions of one pixel where
ours have fully connected layers.
"""

from pathlib import Path

import torch
from torch import Tensor

from common.training.weights import laid_out_as, with_batch_counts
from papers.senet.imagenet import MEAN, ImageNetRecipe

PEAK = 255
COLOUR_MEAN, COLOUR_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of grey levels from 0 to 1
STAGES = {"layer1": "conv2_x", "layer2": "conv3_x", "layer3": "conv4_x", "layer4": "conv5_x"}
FIRST = {"conv1": "conv1.0", "bn1": "conv1.1"}
RESIDUAL = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4", "conv3": "6", "bn3": "7"}
EXCITATION = {"fc1": "w1", "fc2": "w2"}


def read(path: Path, recipe: ImageNetRecipe) -> dict[str, Tensor]:
    """The state of an `ImageNetResNet` and the mean colour, for `evaluate`.

    Raises:
        UsageError: the file is laid out in another way.
    """
    with laid_out_as(path, "timm's"):
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        state = {our_name(name): tensor for name, tensor in theirs.items()}
        mean, deviation = (PEAK * torch.tensor(values) for values in (COLOUR_MEAN, COLOUR_DEVIATION))
        state["conv1.0.weight"] = state["conv1.0.weight"] / deviation[:, None, None]
    one_pixel = {
        name: tensor.flatten(1) for name, tensor in state.items() if ".excitation." in name and tensor.dim() == 4
    }
    return {**with_batch_counts(state | one_pixel), MEAN: mean}


def our_name(theirs: str) -> str:
    """Of a parameter or a moment."""
    part, *rest = theirs.split(".")
    if part == "layer0":
        return ".".join([FIRST[rest[0]], *rest[1:]])
    if part == "last_linear":
        return ".".join(["fc", *rest])
    block, layer, *rest = rest
    if layer == "downsample":
        inside = ["shortcut", *rest]
    elif layer == "se_module":
        inside = ["excitation", EXCITATION[rest[0]], *rest[1:]]
    else:
        inside = ["residual", RESIDUAL[layer], *rest]
    return ".".join([STAGES[part], block, *inside])
