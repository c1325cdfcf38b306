"""The colours of the training pictures: their mean, and the directions in which they vary most, for the colour
augmentation of A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks", 2012, Sec. 4.1."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.data.decoding import Decoded, centre

LOOKED_AT = 5000  # pictures, spread evenly over all
AT_ONCE = 50
PEAK = 255
SPREAD = 0.1  # the standard deviation of the random numbers


@dataclass(frozen=True)
class Colours:
    """In grey levels from 0 to 255.

    Attributes:
        mean: (3,), float32: red, green, blue.
        axes: (3, 3), float32: a row is a principal component of the colours times its variance. As in the code of
            others, variances are those of grey levels from 0 to 1: in those from 0 to 255 the shifts would leave the
            range of the pictures.
    """

    mean: Tensor
    axes: Tensor

    def on(self, device: str) -> "Colours":
        return Colours(self.mean.to(device), self.axes.to(device))


def colours_of(pictures: Sequence[Tensor], side: int, workers: int) -> Colours:
    """Of the middle squares of up to `LOOKED_AT` pictures, resized to side x side. From exact sums."""
    numbers = range(0, len(pictures), -(-len(pictures) // LOOKED_AT))
    parts = [numbers[first : first + AT_ONCE] for first in range(0, len(numbers), AT_ONCE)]
    squares = Decoded(pictures, lambda part: [centre(n, side) for n in parts[part]], len(parts), side, "cpu", workers)
    sums, products = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for batch in squares:
        values = batch.double().transpose(0, 1).flatten(1)
        sums += values.sum(1)
        products += values @ values.T
    pixels = len(numbers) * side**2
    mean = sums / pixels
    variances, directions = torch.linalg.eigh(products / pixels - mean.outer(mean))
    return Colours(mean.float(), (directions * (variances / PEAK**2)).T.mul(PEAK).float())


def light(count: int, draw: torch.Generator) -> Tensor:
    """How far the colours of each picture are moved along the axes: (count, 3)."""
    return SPREAD * torch.randn(count, 3, generator=draw)
