"""CIFAR-10 as Section 4.2 prepares it: the mean of each pixel is subtracted; for training, 4 pixels are
padded on each side and a 32x32 crop is taken at random from the picture or its mirror image.

The pictures stay in memory as bytes, on the device that trains, and a batch is made of them at once.
They keep grey levels as their unit, for the paper only subtracts; the batch normalization behind the
first convolution undoes any scale.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.cifar10 import SIDE
from common.training.determinism import generator

PADDING = 4  # pixels on each side


@dataclass(frozen=True)
class Crops:
    """For each picture of a batch, the crop's first row and column in the padded picture (N,), from 0 to
    2 * PADDING, and whether it is mirrored (N,)."""

    top: Tensor
    left: Tensor
    mirrored: Tensor

    def __getitem__(self, which: slice) -> "Crops":
        return Crops(self.top[which], self.left[which], self.mirrored[which])


def mean_picture(images: Tensor) -> Tensor:
    """The mean of each pixel of the training pictures.

    Args:
        images: (N, 3, 32, 32), uint8.

    Returns:
        (1, 3, 32, 32), float32, channels-last; from exact sums, so the same on every device.
    """
    mean = images.sum(0, keepdim=True, dtype=torch.int64).double() / len(images)
    return mean.float().contiguous(memory_format=torch.channels_last)


def subtract_mean(images: Tensor, mean: Tensor) -> Tensor:
    """Pictures (N, 3, 32, 32) as uint8 to what the network takes: float32, channels-last."""
    return images.to(torch.float32, memory_format=torch.channels_last) - mean


def random_crops(count: int, seed: int, epoch: int, index: int) -> Crops:
    """The crops of the `index`-th batch of an epoch; every offset and either side are equally likely."""
    draw = generator(seed, "crops", epoch, index)
    top, left = torch.randint(2 * PADDING + 1, (2, count), generator=draw)
    return Crops(top, left, torch.randint(2, (count,), generator=draw).bool())


def augment(images: Tensor, mean: Tensor, crops: Crops) -> Tensor:
    """A training batch. The mean is subtracted before the padding, so that a padded pixel is zero and not
    black.

    Args:
        images: (N, 3, 32, 32), uint8; fastest where they are channels-last.
        mean: (1, 3, 32, 32).

    Returns:
        (N, 3, 32, 32), float32, channels-last.
    """
    padded = F.pad(subtract_mean(images, mean), (PADDING,) * 4).permute(0, 2, 3, 1)
    count, height, width, channels = padded.shape
    # Where each pixel of the crops lies in the list of all pixels of the batch.
    top, left, mirrored = (part.to(images.device)[:, None] for part in (crops.top, crops.left, crops.mirrored))
    step = torch.arange(SIDE, device=images.device)
    rows = top + step
    columns = left + torch.where(mirrored, step.flip(0), step)
    first = torch.arange(count, device=images.device) * (height * width)
    which = first[:, None, None] + rows[:, :, None] * width + columns[:, None, :]
    pixels = padded.reshape(-1, channels).index_select(0, which.flatten())
    return pixels.view(count, SIDE, SIDE, channels).permute(0, 3, 1, 2)
