"""Pictures that do not fit into memory: decoded and cut when a batch is asked for, by processes that work ahead.

What is seen of a picture follows from its view's own numbers; nothing is drawn where it is decoded. So batches
are the same to the bit, whatever the number of processes.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.base.errors import DataError, MachineError

PART = 64  # views that a process decodes in a row: what all of them hold ready lies in memory that is scarce


class View(Protocol):
    """What is seen of the picture of a number."""

    @property
    def number(self) -> int: ...

    def cut(self, picture: Tensor, side: int) -> Tensor:
        """It, (3, h, w), out of the picture (3, H, W), both uint8, for a network that takes side x side."""


class Crop(NamedTuple):
    """A square of a picture.

    Attributes:
        number: of the picture.
        shorter: the length, in pixels, to which the picture's shorter side is resized.
        row, column: where in the room that the square has, from 0 (top, left) to below 1 (bottom, right).
    """

    number: int
    shorter: int
    row: float
    column: float

    def cut(self, picture: Tensor, side: int) -> Tensor:
        """The square of `side` x `side` pixels of the resized picture.

        Only what the square shows is resized: its edges lie on whole pixels of the picture, and nothing beyond them is
        averaged in.

        Args:
            picture: (3, H, W), uint8; fastest where the channels are next to each other in memory.

        Returns:
            (3, side, side), uint8.
        """
        height, width = picture.shape[1:]
        seen = min(height, width, round(side * min(height, width) / self.shorter))
        top, left = int(self.row * (height - seen + 1)), int(self.column * (width - seen + 1))
        return resize(picture[:, top : top + seen, left : left + seen], side, side)


class Whole(NamedTuple):
    """All of a picture, its shorter side resized to `shorter` pixels, whatever the network was trained on."""

    number: int
    shorter: int

    def cut(self, picture: Tensor, side: int) -> Tensor:
        factor = self.shorter / min(picture.shape[1:])
        return resize(picture, *(round(length * factor) for length in picture.shape[1:]))


def centre(number: int, shorter: int) -> Crop:
    return Crop(number, shorter, 0.5, 0.5)


def resize(picture: Tensor, height: int, width: int) -> Tensor:
    """(3, H, W) to (3, height, width), both uint8: bilinear, and averaged where it shrinks."""
    return F.interpolate(picture[None], (height, width), mode="bilinear", antialias=True)[0]


def cores_to_decode(device: str) -> int:
    """How many processes decode for this one: on a machine with GPUs its share of the cores; none beside a training
    that needs them itself."""
    if device == "cpu":
        return 0
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class Decoded(Sequence[Tensor]):
    """Batches of views. It is made to be read in order, from wherever one begins.

    Args:
        pictures: each (3, H, W), uint8, decoded when it is asked for.
        views: those of a batch, by its number; what is cut for one batch has one shape.
        batches: how many.
        side: of what the network takes, in pixels.
        device: where the batches are wanted.
        workers: processes that decode ahead; 0: this one does, when asked.
    """

    def __init__(
        self,
        pictures: Sequence[Tensor],
        views: Callable[[int], Sequence[View]],
        batches: int,
        side: int,
        device: str,
        workers: int,
    ):
        self.pictures, self.views, self.batches, self.side = pictures, views, batches, side
        self.device, self.workers = device, workers
        self._next = -1
        self._ahead: Iterator[Tensor | DataError] = iter(())
        self._parts: deque[int] = deque()  # of each batch that was begun, how many it has

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, number: int) -> Tensor:  # type: ignore[override]  # nobody asks for a slice
        """A batch (N, ..., H, W), uint8, on the device.

        Raises:
            DataError: a file cannot be read as a picture.
            MachineError: a process that decodes has died.
        """
        if number >= self.batches:
            raise IndexError(number)
        if number != self._next:
            self._parts.clear()
            self._ahead = iter(self._loader(number))
        self._next = -1  # until the batch is whole
        parts = [self._next_part()]
        parts += [self._next_part() for _ in range(self._parts.popleft() - 1)]
        self._next = number + 1
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _next_part(self) -> Tensor:
        try:
            part = next(self._ahead)
        except RuntimeError as error:
            raise MachineError(f"decoding pictures failed ({str(error).splitlines()[0]}).") from None
        if isinstance(part, DataError):
            raise part
        return part.to(self.device, non_blocking=True)

    def _loader(self, first: int) -> DataLoader:
        return DataLoader(
            _Cut(self.pictures, self.side),
            batch_sampler=self._views_by_part(first),
            num_workers=self.workers,
            collate_fn=_stacked,
            pin_memory=self.device == "cuda",
            generator=torch.Generator(),  # else it draws from the global one
            worker_init_fn=_obey_the_parent,
            multiprocessing_context="fork" if self.workers else None,
        )

    def _views_by_part(self, first: int) -> Iterator[list[View]]:
        for number in range(first, self.batches):
            views = list(self.views(number))
            parts = [views[start : start + PART] for start in range(0, len(views), PART)]
            self._parts.append(len(parts))
            yield from parts


class _Cut(Dataset):
    def __init__(self, pictures: Sequence[Tensor], side: int):
        self.pictures, self.side = pictures, side

    def __getitem__(self, view: View) -> Tensor | DataError:
        """An error is handed on as a value, for one that is raised in a worker arrives as a traceback."""
        try:
            return view.cut(self.pictures[view.number], self.side)
        except DataError as error:
            return error


def _stacked(parts: list[Tensor | DataError]) -> Tensor | DataError:
    for part in parts:
        if isinstance(part, DataError):
            return part
    # The memory order that a decoded picture has, and that networks take.
    channels_last = [part.movedim(-3, -1) for part in parts if isinstance(part, Tensor)]
    return torch.stack(channels_last).movedim(-1, -3)


def _obey_the_parent(_worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, and a cluster's SIGTERM those of a group; the one that trains saves,
    and then ends its workers."""
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ---- tests -----------------------------------------------------------------------------------


def one_crop(squares: Tensor, side: int) -> Tensor:
    """The middle of each square.

    Args:
        squares: (N, 3, S, S), S at least `side`.

    Returns:
        (N, 1, 3, side, side).
    """
    first = (squares.shape[-1] - side) // 2
    return squares[:, None, :, first : first + side, first : first + side]


def ten_crops(squares: Tensor, side: int) -> Tensor:
    """The corners and the middle of each square, and their mirror images: (N, 10, 3, side, side), of (N, 3, S, S).

    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012,
    took them of the middle square of a picture whose shorter side has 256 pixels, for crops of 224.
    """
    last = squares.shape[-1] - side
    corners = [(top, left) for top in (0, last) for left in (0, last)]
    five = [squares[..., top : top + side, left : left + side] for top, left in (*corners, (last // 2, last // 2))]
    return torch.stack([*five, *(crop.flip(-1) for crop in five)], dim=1)


def of_one_shape(pictures: Iterable[Tensor], pixels: int) -> Iterator[tuple[list[int], Tensor]]:
    """Pictures of several shapes in batches of one shape each, for a network that takes any.

    Args:
        pictures: each (1, 3, H, W).
        pixels: at most so many in a batch, unless a single picture has more.

    Yields:
        The places of N pictures among all, and the N themselves, (N, 3, H, W).
    """
    shown, places = list(pictures), dict[torch.Size, list[int]]()
    for place, picture in enumerate(shown):
        places.setdefault(picture.shape, []).append(place)
    for shape, alike in places.items():
        at_once = max(1, pixels // (shape[-2] * shape[-1]))
        for first in range(0, len(alike), at_once):
            some = alike[first : first + at_once]
            yield some, torch.cat([shown[place] for place in some])
