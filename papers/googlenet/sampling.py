"""What training sees of the pictures: patches of many sizes, mirrored and distorted (Sec. 6).

"Sampling of various sized patches of the image whose size is distributed evenly between 8% and 100% of the image area
with aspect ratio constrained to the interval [3/4, 4/3]", and the photometric distortions of Andrew Howard ("Some
Improvements on Deep Convolutional Neural Network Based Image Classification", 2013). The resizing is bilinear; the
random choice of its method, which the authors took up late and could not tell the use of, is left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

AREA = (0.08, 1.0)  # of a patch, as a share of the picture's
ASPECT = (3 / 4, 4 / 3)  # width by height
TRIES = 10  # at a patch that lies within its picture
LUMA = (0.299, 0.587, 0.114)  # Rec. 601, with which PIL makes a picture grey
PEAK = 255


@dataclass(frozen=True)
class Patches:
    """Where N patches lie in their pictures, and which are mirrored. Each (N,), int64, `mirrored` bool."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    mirrored: Tensor


def training_batch(pictures: Sequence[Tensor], side: int, distortion: float, draw: torch.Generator) -> Tensor:
    """A patch of every picture, resized, distorted, and mirrored with chance 1/2.

    Args:
        pictures: each (3, H, W), uint8, of any size.
        side: of the network's input, in pixels.
        distortion: how far the photometric distortions go, as in `photometric`.
        draw: where the random numbers come from.

    Returns:
        (N, 3, side, side), float32, 0 to 255.
    """
    heights, widths = (torch.tensor([picture.shape[axis] for picture in pictures]) for axis in (1, 2))
    patches = draw_patches(heights, widths, draw)
    return photometric(cut(pictures, patches, side).float(), distortion, draw)


def draw_patches(heights: Tensor, widths: Tensor, draw: torch.Generator) -> Patches:
    """A patch at random in each of N pictures of these sizes, each (N,).

    Area even, aspect even on a logarithmic scale, so that a shape and the same upright are equally likely. What does
    not fit into its picture is drawn again; after `TRIES`, in a picture far from square, the patch is the largest in
    the middle that the aspect ratios allow.
    """
    count = len(heights)
    area = _uniform(AREA, (TRIES, count), draw) * heights * widths
    aspect = _uniform(tuple(math.log(ratio) for ratio in ASPECT), (TRIES, count), draw).exp()
    width, height = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (width <= widths) & (height <= heights)
    first = fits.int().argmax(dim=0, keepdim=True)
    found = fits.any(dim=0)
    width = torch.where(found, width.gather(0, first)[0], torch.minimum(widths, (heights * ASPECT[1]).long()))
    height = torch.where(found, height.gather(0, first)[0], torch.minimum(heights, (widths / ASPECT[0]).long()))
    where = torch.rand(2, count, generator=draw)
    top = torch.where(found, (where[0] * (heights - height + 1)).long(), (heights - height) // 2)
    left = torch.where(found, (where[1] * (widths - width + 1)).long(), (widths - width) // 2)
    return Patches(top, left, height, width, torch.rand(count, generator=draw) < 0.5)


def _uniform(interval: tuple[float, float], shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(*interval, generator=draw)


def cut(pictures: Sequence[Tensor], patches: Patches, side: int) -> Tensor:
    """The patches of pictures (3, H, W), of the pictures' type. Shape (N, 3, side, side)."""
    boxes = torch.stack([patches.top, patches.left, patches.height, patches.width], dim=1).tolist()
    resized = [
        resize(picture[:, top : top + height, left : left + width], side, side)
        for picture, (top, left, height, width) in zip(pictures, boxes, strict=True)
    ]
    batch = torch.stack(resized)
    return torch.where(patches.mirrored[:, None, None, None], batch.flip(3), batch)


def resize(picture: Tensor, height: int, width: int) -> Tensor:
    """(3, H, W), uint8 or float, to (3, height, width), bilinear, and averaged where it shrinks."""
    return F.interpolate(picture[None], (height, width), mode="bilinear", antialias=True)[0]


def photometric(pictures: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    """Brightness, contrast and colour of every picture changed at random, in an order drawn for each.

    As PIL's ImageEnhance, which Howard used, has it, each is a mixture of the picture and something grey: black, the
    picture's mean grey, and the picture without its colours. How much of the picture is in it is even between
    1 - `strength` and 1 + `strength`. The ranges are open: GoogLeNet's paper gives none.

    Args:
        pictures: (N, 3, H, W), float, 0 to 255.

    Returns:
        The same shape and range.
    """
    count = len(pictures)
    order = torch.rand(count, 3, generator=draw).argsort(dim=1)
    share = _uniform((1 - strength, 1 + strength), (count, 3), draw)
    weights = torch.tensor(LUMA)[:, None, None]
    for step in range(3):
        change = order[:, step, None, None, None]
        grey = (pictures * weights).sum(dim=1, keepdim=True)
        flat = grey.mean(dim=(2, 3), keepdim=True) * (change == 1)
        other = torch.where(change == 2, grey, flat)
        pictures = torch.lerp(other, pictures, share[:, step, None, None, None]).clamp_(0, PEAK)
    return pictures
