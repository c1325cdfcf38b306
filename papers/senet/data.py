"""CIFAR-10 as Section 5.1 prepares it: standardised; for training, 4 pixels of zeros are padded on each
side and a 32x32 crop is taken at random, mirrored or not.

The paper standardises by mean and standard deviation. The ResNet paper, whose recipe the networks of
20 layers are trained with, subtracts the mean of each pixel and leaves it at that.

The pictures stay in memory as bytes, on the device that trains, and a batch is made of them at once.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.cifar10 import SIDE
from common.training.determinism import generator

PADDING = 4  # pixels on each side


@dataclass(frozen=True)
class Standard:
    """What pictures are standardised by: a mean, of each pixel or each channel, and a standard deviation of each
    channel, or None to subtract only. Their shapes go with pictures (N, 3, H, W)."""

    mean: Tensor
    deviation: Tensor | None

    def to(self, device: str) -> "Standard":
        return Standard(self.mean.to(device), None if self.deviation is None else self.deviation.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) as uint8 to what the network takes: float32, channels-last."""
        centred = images.to(torch.float32, memory_format=torch.channels_last) - self.mean
        return centred if self.deviation is None else centred / self.deviation


def of_each_pixel(images: Tensor) -> Standard:
    """The ResNet paper's: the mean at each pixel of the training pictures (N, 3, 32, 32), uint8."""
    mean = images.sum(0, keepdim=True, dtype=torch.int64).double() / len(images)
    return Standard(mean.float().contiguous(memory_format=torch.channels_last), None)


def of_each_channel(images: Tensor) -> Standard:
    """The paper's: mean and standard deviation of each channel of the training pictures (N, 3, 32, 32), uint8."""
    levels = torch.arange(256, dtype=torch.float64)
    moments = []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).cpu() / channel.numel()
        mean = (share * levels).sum()
        moments.append((mean, (share * (levels - mean) ** 2).sum().sqrt()))
    mean, deviation = torch.tensor(moments, dtype=torch.float64).T
    return Standard(mean.float().view(1, 3, 1, 1), deviation.float().view(1, 3, 1, 1)).to(images.device)


@dataclass(frozen=True)
class Crops:
    """For each picture of a batch, the crop's first row and column in the padded picture (N,), from 0 to
    2 * PADDING, and whether it is mirrored (N,)."""

    top: Tensor
    left: Tensor
    mirrored: Tensor


def random_crops(count: int, seed: int, epoch: int, index: int) -> Crops:
    """The crops of the `index`-th batch of an epoch; every offset and either side are equally likely."""
    draw = generator(seed, "crops", epoch, index)
    top, left = torch.randint(2 * PADDING + 1, (2, count), generator=draw)
    return Crops(top, left, torch.randint(2, (count,), generator=draw).bool())


def augment(images: Tensor, standard: Standard, crops: Crops) -> Tensor:
    """A training batch, standardised before the padding, so that a padded pixel is zero and not black.

    Args:
        images: (N, 3, 32, 32), uint8; fastest where they are channels-last.

    Returns:
        (N, 3, 32, 32), float32, channels-last.
    """
    padded = F.pad(standard(images), (PADDING,) * 4).permute(0, 2, 3, 1)
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
