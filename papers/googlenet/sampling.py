"""What training sees of the pictures: patches of many sizes, mirrored and distorted (Sec. 6).

"Sampling of various sized patches of the image whose size is distributed evenly between 8% and 100% of the image area
with aspect ratio constrained to the interval [3/4, 4/3]", and the photometric distortions of Andrew Howard ("Some
Improvements on Deep Convolutional Neural Network Based Image Classification", 2013): brightness, contrast and
colour, each by a factor from 0.5 to 1.5, in random order, and then the random lighting of `common.data.colours`. The
resizing is bilinear; the random choice of its method, which the authors took up late and could not tell the use of, is
left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

AREA = (0.08, 1.0)  # of a patch, as a share of the picture's
ASPECT = (3 / 4, 4 / 3)  # width by height
TRIES = 10  # at a patch that lies within its picture
LUMA = (0.299, 0.587, 0.114)  # Rec. 601, with which PIL makes a picture grey
PEAK = 255


@dataclass(frozen=True)
class Stack:
    """N pictures of several sizes in one block of memory. Upright ones lie on their side, so that little is padded.

    Attributes:
        pixels: (N, 3, H, W), uint8, on the device that trains; what is beyond a picture's own edges is never looked at.
        heights, widths: of each as it lies, (N,), int64, on the CPU.
        upright: (N,), bool, on the CPU: rows and columns are exchanged.
    """

    pixels: Tensor
    heights: Tensor
    widths: Tensor
    upright: Tensor

    def __getitem__(self, numbers: Tensor) -> "Stack":
        """Some of the pictures, in a block that is no larger than they are."""
        heights, widths = self.heights[numbers], self.widths[numbers]
        pixels = self.pixels[:, :, : heights.max(), : widths.max()][numbers.to(self.pixels.device)]
        return Stack(pixels, heights, widths, self.upright[numbers])


def stack(pictures: Sequence[Tensor], device: str = "cpu") -> Stack:
    """Pictures, each (3, H, W), uint8, side by side on a device."""
    upright = torch.tensor([picture.shape[1] > picture.shape[2] for picture in pictures])
    lying = [picture.mT if turned else picture for picture, turned in zip(pictures, upright, strict=True)]
    heights, widths = torch.tensor([picture.shape[1:] for picture in lying]).T
    pixels = torch.zeros(len(lying), 3, int(heights.max()), int(widths.max()), dtype=torch.uint8)
    for block, picture in zip(pixels, lying, strict=True):
        block[:, : picture.shape[1], : picture.shape[2]] = picture
    return Stack(pixels.to(device), heights, widths, upright)


@dataclass(frozen=True)
class Patches:
    """Where N patches lie in their pictures as these lie, and which are mirrored, left to right, once they stand.
    Each (N,), int64, `mirrored` bool."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    mirrored: Tensor


def training_batch(pictures: Stack, side: int, distortion: float, draw: torch.Generator) -> Tensor:
    """A patch of every picture, resized, distorted, and mirrored with chance 1/2.

    Args:
        side: of the network's input, in pixels.
        distortion: how far the photometric distortions go, as in `photometric`.
        draw: where the random numbers come from, on the CPU.

    Returns:
        (N, 3, side, side), float32, 0 to 255, on the pictures' device.
    """
    patches = draw_patches(pictures.heights, pictures.widths, draw)
    return photometric(cut(pictures, patches, side), distortion, draw)


def draw_patches(heights: Tensor, widths: Tensor, draw: torch.Generator) -> Patches:
    """A patch at random in each of N pictures of these sizes, each (N,)."""
    return draw_tries(len(heights), draw).fit(heights, widths)


@dataclass(frozen=True)
class Tries:
    """What is drawn for patches of N pictures, whatever the pictures' sizes.

    Area even, aspect even on a logarithmic scale, so that a shape and the same upright are equally likely. What does
    not fit into its picture is drawn again; after `TRIES`, in a picture far from square, the patch is the largest in
    the middle that the aspect ratios allow.

    Attributes:
        areas, aspects: of each try, (TRIES, N): as a share of the picture's; width by height.
        place: (2, N): row and column, from 0 to below 1 in the room that there is.
        mirrored: (N,), bool.
    """

    areas: Tensor
    aspects: Tensor
    place: Tensor
    mirrored: Tensor

    def fit(self, heights: Tensor, widths: Tensor) -> Patches:
        """The patches in pictures of these sizes, each (N,)."""
        area = self.areas * heights * widths
        width = (area * self.aspects).sqrt().round().long()
        height = (area / self.aspects).sqrt().round().long()
        fits = (width <= widths) & (height <= heights)
        first = fits.int().argmax(dim=0, keepdim=True)
        found = fits.any(dim=0)
        width = torch.where(found, width.gather(0, first)[0], torch.minimum(widths, (heights * ASPECT[1]).long()))
        height = torch.where(found, height.gather(0, first)[0], torch.minimum(heights, (widths / ASPECT[0]).long()))
        top, left = ((heights - height) // 2, (widths - width) // 2)
        top = torch.where(found, (self.place[0] * (heights - height + 1)).long(), top)
        left = torch.where(found, (self.place[1] * (widths - width + 1)).long(), left)
        return Patches(top, left, height, width, self.mirrored)


def draw_tries(count: int, draw: torch.Generator) -> Tries:
    areas = _uniform(AREA, (TRIES, count), draw)
    aspects = _uniform(tuple(math.log(ratio) for ratio in ASPECT), (TRIES, count), draw).exp()
    return Tries(areas, aspects, torch.rand(2, count, generator=draw), torch.rand(count, generator=draw) < 0.5)


class Patch(NamedTuple):
    """A patch of a picture that is yet to be decoded, in numbers that another process can be sent; as `Tries`."""

    number: int
    areas: list[float]
    aspects: list[float]
    place: list[float]
    mirrored: bool

    def cut(self, picture: Tensor, side: int) -> Tensor:
        """Of a picture (3, H, W), uint8: the patch, resized and mirrored, (3, side, side), uint8."""
        of_tries = (torch.tensor(values)[:, None] for values in (self.areas, self.aspects, self.place))
        height, width = torch.tensor(picture.shape[1:])[:, None]
        patch = Tries(*of_tries, torch.tensor([self.mirrored])).fit(height, width)
        top, left, height, width = (int(value) for value in (patch.top, patch.left, patch.height, patch.width))
        part = resize(picture[:, top : top + height, left : left + width], side, side)
        return part.flip(2) if self.mirrored else part


def patches_of(numbers: Tensor, draw: torch.Generator) -> list[Patch]:
    """A patch at random of each of these pictures, (N,)."""
    tries = draw_tries(len(numbers), draw)
    of_each = (tries.areas.T, tries.aspects.T, tries.place.T, tries.mirrored)
    columns = (values.tolist() for values in (numbers, *of_each))
    return [Patch(*values) for values in zip(*columns, strict=True)]


def _uniform(interval: tuple[float, float], shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(*interval, generator=draw)


def cut(pictures: Stack, patches: Patches, side: int) -> Tensor:
    """The patches of the pictures, resized. Shape (N, 3, side, side), float32.

    Resizing rows, and then columns, is one matrix product for the whole batch.
    """
    pixels = pictures.pixels.float()
    rows = _resampling(patches.top.to(pixels.device), patches.height.to(pixels.device), side, pixels.shape[2])
    columns = _resampling(patches.left.to(pixels.device), patches.width.to(pixels.device), side, pixels.shape[3])
    batch = rows[:, None] @ (pixels @ columns[:, None].mT)
    batch = _where(pictures.upright, batch.mT, batch)
    return _where(patches.mirrored, batch.flip(3), batch)


def _where(which: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Whole pictures (N, 3, H, W) of the one or the other batch."""
    return torch.where(which.to(yes.device)[:, None, None, None], yes, no)


def _resampling(begin: Tensor, size: Tensor, side: int, length: int) -> Tensor:
    """The weights that each of `length` pixels has in each of `side`, into which `size` pixels from `begin` on are
    resized; `begin` and `size` (N,), the weights (N, side, length).

    Bilinear, and averaged where it shrinks, as `resize`: triangles as wide as a pixel of the picture or of the patch,
    whichever is larger.
    """
    begin, size = begin[:, None, None], size[:, None, None]
    pixel, scale = torch.arange(length, device=size.device), size / side
    middle = begin + (torch.arange(side, device=size.device)[:, None] + 0.5) * scale
    weight = (1 - (pixel + 0.5 - middle).abs() / scale.clamp(min=1)).clamp(min=0)
    weight *= (pixel >= begin) & (pixel < begin + size)
    return weight / weight.sum(dim=2, keepdim=True)


def resize(picture: Tensor, height: int, width: int) -> Tensor:
    """(3, H, W), uint8 or float, to (3, height, width), bilinear, and averaged where it shrinks."""
    return F.interpolate(picture[None], (height, width), mode="bilinear", antialias=True)[0]


def photometric(pictures: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    """Brightness, contrast and colour of every picture changed at random, in an order drawn for each.

    As PIL's ImageEnhance, which Howard used, has it, each is a mixture of the picture and something grey: black, the
    picture's mean grey, and the picture without its colours. How much of the picture is in it is even between
    1 - `strength` and 1 + `strength`.

    Args:
        pictures: (N, 3, H, W), float, 0 to 255.

    Returns:
        The same shape and range.
    """
    count = len(pictures)
    order = torch.rand(count, 3, generator=draw).argsort(dim=1).to(pictures.device)
    share = _uniform((1 - strength, 1 + strength), (count, 3), draw).to(pictures.device)
    weights = torch.tensor(LUMA, device=pictures.device)[:, None, None]
    for step in range(3):
        change = order[:, step, None, None, None]
        grey = (pictures * weights).sum(dim=1, keepdim=True)
        flat = grey.mean(dim=(2, 3), keepdim=True) * (change == 1)
        other = torch.where(change == 2, grey, flat)
        pictures = torch.lerp(other, pictures, share[:, step, None, None, None]).clamp_(0, PEAK)
    return pictures
