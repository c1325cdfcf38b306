"""How training sees a picture of ImageNet (Sec. 5.1): as a crop of random size and aspect ratio, or its mirror image,
after C. Szegedy et al., "Going Deeper with Convolutions", 2015, Sec. 6: patches "whose size is distributed evenly
between 8% and 100% of the image area with aspect ratio constrained to the interval [3/4, 4/3]"."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from common.data.decoding import resize

AREA = (0.08, 1.0)  # as a share of the picture's
ASPECT = (3 / 4, 4 / 3)  # width by height
TRIES = 10  # at a patch that lies within its picture


class Patch(NamedTuple):
    """A rectangle of a picture, which the network sees as a square.

    Attributes:
        number: of the picture.
        areas, aspects: of `TRIES` rectangles, of which the first that fits into the picture is taken.
        row, column: where in the room that it has, from 0 (top, left) to below 1 (bottom, right).
        mirrored: left to right.
    """

    number: int
    areas: list[float]
    aspects: list[float]
    row: float
    column: float
    mirrored: bool

    def cut(self, picture: Tensor, side: int) -> Tensor:
        """Out of (3, H, W), uint8: (3, side, side). Where none of the rectangles fits, in a picture far from square,
        the largest in the middle that the aspect ratios allow."""
        whole = picture.shape[1:]
        for area, aspect in zip(self.areas, self.aspects, strict=True):
            pixels = area * math.prod(whole)
            height, width = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
            if 0 < height <= whole[0] and 0 < width <= whole[1]:
                top, left = int(self.row * (whole[0] - height + 1)), int(self.column * (whole[1] - width + 1))
                break
        else:
            height = min(whole[0], round(whole[1] / ASPECT[0]))
            width = min(whole[1], round(whole[0] * ASPECT[1]))
            top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
        seen = resize(picture[:, top : top + height, left : left + width], side, side)
        return seen.flip(2) if self.mirrored else seen


def draw_patches(numbers: Tensor, draw: torch.Generator) -> list[Patch]:
    """A patch of each picture of these numbers, (N,): area even; aspect even on a logarithmic scale, so that a shape is
    as likely as the same upright; every place and either side equally likely."""
    count = len(numbers)
    areas = torch.empty(count, TRIES, dtype=torch.float64).uniform_(*AREA, generator=draw)
    aspects = torch.empty(count, TRIES, dtype=torch.float64).uniform_(*map(math.log, ASPECT), generator=draw).exp()
    places = torch.rand(count, 2, dtype=torch.float64, generator=draw)
    mirrored = torch.randint(2, (count,), generator=draw).bool()
    drawn = (part.tolist() for part in (numbers, areas, aspects, places, mirrored))
    return [Patch(n, area, aspect, *place, flip) for n, area, aspect, place, flip in zip(*drawn, strict=True)]
