"""How training sees a picture, by scale jitter: "the image is resized with its shorter side randomly sampled in
[256, 480] for scale augmentation. A 224x224 crop is randomly sampled from an image or its horizontal flip" (K. He,
X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2016, Sec. 3.4, after Simonyan and Zisserman).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.data.colours import Colours, light
from common.data.decoding import Crop


@dataclass(frozen=True)
class Views:
    """Of N pictures.

    Attributes:
        shorter: (N,), int64, in pixels: to what a picture's shorter side is resized.
        place: (N, 2): row and column of the crop, as in `Crop`.
        mirrored: (N,), bool.
        light: (N, 3): how far the colours are moved, as in `colours.light`.
    """

    shorter: Tensor
    place: Tensor
    mirrored: Tensor
    light: Tensor

    def __getitem__(self, which: Tensor) -> "Views":
        return Views(self.shorter[which], self.place[which], self.mirrored[which], self.light[which])

    def crops(self, numbers: Tensor) -> list[Crop]:
        """What is to be cut out of pictures of these numbers, (N,)."""
        together = zip(numbers.tolist(), self.shorter.tolist(), self.place.tolist(), strict=True)
        return [Crop(number, shorter, *place) for number, shorter, place in together]


def draw_views(count: int, scales: tuple[int, int], draw: torch.Generator) -> Views:
    """Every length between the two `scales`, every place and either side are equally likely."""
    shorter = torch.randint(scales[0], scales[1] + 1, (count,), generator=draw)
    place = torch.rand(count, 2, generator=draw, dtype=torch.float64)
    return Views(shorter, place, torch.randint(2, (count,), generator=draw).bool(), light(count, draw))


def as_input(pixels: Tensor, colours: Colours, views: Views | None = None) -> Tensor:
    """What a network takes: the mean colour subtracted; for training, mirrored and with its colours moved.

    Args:
        pixels: (N, 3, S, S), uint8, where the colours are.

    Returns:
        The same shape, float32, channels-last.
    """
    device = pixels.device
    if views is not None:
        # As bytes, a quarter of the memory; with the channels last, since indexing does not keep another memory order.
        mirrored, upright = views.mirrored.nonzero()[:, 0].to(device), pixels.permute(0, 2, 3, 1)
        pixels = upright.index_copy(0, mirrored, upright.index_select(0, mirrored).flip(2)).permute(0, 3, 1, 2)
    seen = pixels.to(torch.float32, memory_format=torch.channels_last)
    _add_to_maps(seen, -colours.mean[None])
    if views is not None:
        _add_to_maps(seen, views.light.to(device) @ colours.axes)
    return seen


def _add_to_maps(pictures: Tensor, values: Tensor) -> None:
    """Add to each map of pictures (N, C, H, W), channels-last, its value (N or 1, C), in place. A whole row is added to
    at once, because the three values of a pixel do not fill a vector register."""
    count, channels, height, width = pictures.shape
    rows = pictures.permute(0, 2, 3, 1).view(count, height, width * channels)
    rows += values.repeat(1, width)[:, None]
