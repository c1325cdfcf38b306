"""Testing with 1, 10 and 144 crops of a picture (Sec. 7).

A picture is resized so that its shorter side has 256, 288, 320 and 352 pixels. Of each size three squares are taken,
left, centre and right, or of an upright picture top, centre and bottom; of each square the four corners and the centre,
224 x 224, and the square itself, resized to that; and all of these mirrored: 4 x 3 x 6 x 2 = 144 crops. The softmax
probabilities are averaged over the crops and over the networks.

How its 1 and 10 crops are taken the paper does not say; here the ten are those of Krizhevsky et al. (2012), to whom it
compares its own: the four corners and the centre of the centre square at 256, and their mirrored versions. The one is
the centre. A network that takes other pictures than 224 x 224
sees crops of its own size from scales as much smaller or larger: at 112 pixels they are 128, 144, 160 and 176.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from papers.googlenet.model import SIDE
from papers.googlenet.sampling import resize

CROPS_AT_ONCE = {"cpu": 32, "cuda": 256}  # through the network

# Positions along a side, in halves of the room there is: at its begin, in the middle, at its end.
BEGIN, MIDDLE, END = 0, 1, 2
CENTRE = (MIDDLE, MIDDLE)
CORNERS = ((BEGIN, BEGIN), (BEGIN, END), (END, BEGIN), (END, END))
WHOLE = None  # the square itself, resized


@dataclass(frozen=True)
class Protocol:
    """Which crops are taken: of every scale every square, of every square every place, each as it is or mirrored too.

    Attributes:
        scales: lengths of the picture's shorter side, in pixels, for a network that takes 224 x 224.
        squares: positions along the longer side.
        places: positions of a crop in its square, (row, column), or `WHOLE`.
    """

    scales: tuple[int, ...]
    squares: tuple[int, ...]
    places: tuple[tuple[int, int] | None, ...]
    mirrored: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.scales) * len(self.squares) * len(self.places) * len(self.mirrored)


PROTOCOLS = {
    1: Protocol((256,), (MIDDLE,), (CENTRE,), (False,)),
    10: Protocol((256,), (MIDDLE,), (*CORNERS, CENTRE), (False, True)),
    144: Protocol((256, 288, 320, 352), (BEGIN, MIDDLE, END), (*CORNERS, CENTRE, WHOLE), (False, True)),
}


@dataclass(frozen=True)
class Crop:
    """A square part of a resized picture, in pixels. `scale` is the shorter side of that picture."""

    scale: int
    top: int
    left: int
    size: int
    mirrored: bool


def crops_of(height: int, width: int, side: int, protocol: Protocol) -> list[Crop]:
    """Where the crops of a picture of this size lie, for a network that takes side x side."""
    crops = []
    for scale in (round(scale * side / SIDE) for scale in protocol.scales):
        rows, columns = resized_shape(height, width, scale)
        for square in protocol.squares:
            first_row, first_column = _offset(rows - scale, square), _offset(columns - scale, square)
            for place in protocol.places:
                size = scale if place is WHOLE else side
                row, column = (0, 0) if place is WHOLE else (_offset(scale - side, position) for position in place)
                for mirrored in protocol.mirrored:
                    crops.append(Crop(scale, first_row + row, first_column + column, size, mirrored))
    return crops


def resized_shape(height: int, width: int, shorter: int) -> tuple[int, int]:
    """The picture's shape when its shorter side is made that long."""
    factor = shorter / min(height, width)
    return round(height * factor), round(width * factor)


def _offset(room: int, position: int) -> int:
    return room * position // 2


def cut_crops(picture: Tensor, side: int, protocol: Protocol) -> Tensor:
    """All crops of a picture (3, H, W), uint8 or float. Shape (crops, 3, side, side), of the same type."""
    height, width = picture.shape[1:]
    crops = crops_of(height, width, side, protocol)
    resized = {scale: resize(picture, *resized_shape(height, width, scale)) for scale in {crop.scale for crop in crops}}
    cut = []
    for crop in crops:
        part = resized[crop.scale][:, crop.top : crop.top + crop.size, crop.left : crop.left + crop.size]
        if crop.size != side:
            part = resize(part, side, side)
        cut.append(part.flip(2) if crop.mirrored else part)
    return torch.stack(cut)


class CropsOf(NamedTuple):
    """All crops of a picture that is yet to be decoded."""

    number: int
    count: int  # as in `PROTOCOLS`

    def cut(self, picture: Tensor, side: int) -> Tensor:
        """Of a picture (3, H, W), uint8: (count, 3, side, side), uint8."""
        return cut_crops(picture, side, PROTOCOLS[self.count])


@torch.inference_mode()
def predict(
    networks: Sequence[nn.Module],
    pictures: Sequence[Tensor],
    side: int,
    protocol: Protocol,
    prepare: Callable[[Tensor], Tensor],
    at_once: int,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Softmax probabilities, averaged over the crops of each picture and over the networks (Sec. 7).

    The crops of all pictures go through the networks in one stream, `at_once` at a time, so that memory does not
    depend on their number.

    Args:
        networks: in evaluation mode; each makes logits (N, classes) of what `prepare` returns.
        pictures: each (3, H, W), uint8, of any size.
        side: of the networks' input, in pixels.
        prepare: makes crops (N, 3, side, side), uint8, on the CPU into the networks' input, on their device.
        advance: called with the number of pictures that were finished, for who shows progress.

    Returns:
        (pictures, classes), float64, on the CPU.
    """
    sums: Tensor | None = None
    finished = 0
    for numbers, crops in _stream(pictures, side, protocol, at_once):
        seen = prepare(crops)
        for network in networks:
            probabilities = network(seen).double().softmax(dim=1).cpu()
            if sums is None:
                sums = probabilities.new_zeros(len(pictures), probabilities.shape[1])
            sums.index_add_(0, numbers, probabilities)
        if advance and numbers[-1] > finished:
            advance(int(numbers[-1]) - finished)
            finished = int(numbers[-1])
    if advance:
        advance(len(pictures) - finished)
    return sums / (len(networks) * len(protocol))


def _stream(pictures: Sequence[Tensor], side: int, protocol: Protocol, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers of pictures (N,) and a crop of each (N, 3, side, side), in order, N being `at_once` but for the last."""
    numbers, crops = torch.empty(0, dtype=torch.long), torch.empty(0, 3, side, side, dtype=pictures[0].dtype)
    for number, picture in enumerate(pictures):
        numbers = torch.cat([numbers, torch.full((len(protocol),), number)])
        crops = torch.cat([crops, cut_crops(picture, side, protocol)])
        while len(crops) >= at_once:
            yield numbers[:at_once], crops[:at_once]
            numbers, crops = numbers[at_once:], crops[at_once:]
    if len(crops):
        yield numbers, crops
