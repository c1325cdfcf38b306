"""Train400, Set12 and BSD68; the pictures of CDnCNN-B and DnCNN-3; and the patches cut from them.

The training pictures are kept in memory once, as bytes; patches are cut from them on
the device that trains, a batch at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.base.errors import DataError, UsageError
from common.data.passports import LocatedData
from common.data.photographs import shipped_photograph
from common.data.pictures import NO_PICTURE, opened
from common.data.splits import split_hash
from common.training.determinism import generator
from papers.dncnn import degrade

HELD_OUT_EVERY = 10  # of the training pictures, where some are held out to measure on
GRID_STRIDE = 20  # the authors' code
TURNS = 8  # flips and rotations of a square

SCALES = (2, 3, 4)  # of super-resolution (Sec. III-E)
QUALITIES = (5, 99)  # of JPEG (Sec. III-E)
JPEG_COPIES = 5  # of each picture, each of its own quality
CLEAN, SMALL, JPEG = 0, 1, 1 + len(SCALES)  # where a picture's versions begin: as it is, by scale, by quality
VERSIONS = JPEG + JPEG_COPIES

# The other folders, those of DnCNN-3, may hold both; of a colour picture the luminance is taken.
GREY_FOLDERS, COLOUR_FOLDERS = ("Train400", "BSD68", "Set12"), ("Train432", "CBSD68")

# Training and test folders, by dataset. A test set may also be a dataset by itself.
TRAIN_FOLDERS = {"bsd": ["Train400"], "bsd_colour": ["Train432"], "three_tasks": ["T91", "BSD200"]}
TEST_FOLDERS = {
    "bsd": {"bsd68": "BSD68", "set12": "Set12"},
    "bsd_colour": {"cbsd68": "CBSD68"},
    "three_tasks": {
        "bsd68": "BSD68", "set5": "Set5", "set14": "Set14", "bsd100": "BSD100", "urban100": "Urban100",
        "classic5": "Classic5", "live1": "LIVE1",
    },
}  # fmt: skip
FOLDERS_OF_TESTS = {test: folder for tests in TEST_FOLDERS.values() for test, folder in tests.items()}
STANDIN_TRAIN = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "china.jpg")
STANDIN_TEST = ("flower.jpg", "camera.png")
STANDIN_SIDE = 180  # of a training picture, as in Train400
STANDIN_TEST_SHAPES = ((49, 65), (64, 48))


@dataclass(frozen=True)
class Collection:
    """Pictures by name: (H, W) or (H, W, 3) as uint8, for training and by test set."""

    train: dict[str, np.ndarray]
    tests: dict[str, dict[str, np.ndarray]]

    def split_hash(self) -> str:
        """sha256 over the names of which pictures train and which test, in their order."""
        return split_hash(train=list(self.train), **{test: list(pictures) for test, pictures in self.tests.items()})


def load(data: LocatedData, held_out: bool = False) -> Collection:
    """The pictures of the located files, or of the stand-in.

    Args:
        held_out: some training pictures take the place of the test sets, which are not read.

    Raises:
        DataError: a file is not a picture, or is in colour where grey is expected, or the other way round.
    """
    if data.standin:
        collection = _standin(data.dataset)
    else:
        tests = TEST_FOLDERS.get(data.dataset) or {data.dataset: FOLDERS_OF_TESTS[data.dataset]}
        collection = Collection(
            _read_folders(data, TRAIN_FOLDERS.get(data.dataset, [])),
            {} if held_out else {test: _read_folders(data, [folder]) for test, folder in tests.items()},
        )
    return _hold_out(collection) if held_out else collection


def _read_folders(data: LocatedData, folders: Sequence[str]) -> dict[str, np.ndarray]:
    files = {name: data.folder / name for name in sorted(data.files)}
    pictures = {name: _read(file) for name, file in files.items() if file.parent.name in folders}
    for name, picture in pictures.items():
        if files[name].parent.name in GREY_FOLDERS and picture.ndim != 2:
            raise DataError(f"{files[name]} is in colour, where grey is expected.")
        if files[name].parent.name in COLOUR_FOLDERS and picture.ndim != 3:
            raise DataError(f"{files[name]} is grey, where colour is expected.")
    return pictures


def _read(path: Path) -> np.ndarray:
    try:
        with opened(path) as picture:
            return np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))
    except NO_PICTURE as error:
        raise DataError(f"{path} cannot be read as a picture ({error}).") from None


def _hold_out(collection: Collection) -> Collection:
    names = list(collection.train)
    held_out = names[::HELD_OUT_EVERY]
    kept = {name: collection.train[name] for name in names if name not in held_out}
    return Collection(kept, {"held-out": {name: collection.train[name] for name in held_out}})


def _standin(dataset: str) -> Collection:
    """Photographs that come with scikit-image and scikit-learn, cut into small pictures."""
    mode = "L" if dataset == "bsd" else "RGB"
    cut = {}
    for name in STANDIN_TRAIN:
        photograph = _photograph(name, mode)
        for row in range(0, photograph.shape[0] - STANDIN_SIDE + 1, STANDIN_SIDE):
            for column in range(0, photograph.shape[1] - STANDIN_SIDE + 1, STANDIN_SIDE):
                part = photograph[row : row + STANDIN_SIDE, column : column + STANDIN_SIDE]
                cut[f"{name}/{row}-{column}"] = part
    tests = {
        name: _photograph(name, mode)[200 : 200 + height, 160 : 160 + width]
        for name, (height, width) in zip(STANDIN_TEST, STANDIN_TEST_SHAPES, strict=True)
    }
    return Collection(cut, dict.fromkeys(TEST_FOLDERS[dataset], tests))


def _photograph(name: str, mode: str) -> np.ndarray:
    return np.asarray(shipped_photograph(name).convert(mode))


# ---- patches ----------------------------------------------------------------------------


class Pictures:
    """Pictures of any sizes, one after the other, as bytes on one device, and what is needed to cut
    squares of `side` pixels from them. Shape of `pixels`: (C, all pixels).

    Raises:
        UsageError: no picture is as large as a square.
    """

    def __init__(self, pictures: Sequence[np.ndarray], side: int, device: str):
        planes = [np.atleast_3d(picture).transpose(2, 0, 1) for picture in pictures]
        self.heights = torch.tensor([plane.shape[1] for plane in planes])
        self.widths = torch.tensor([plane.shape[2] for plane in planes])
        _require_room(self.heights, self.widths, side)
        sizes = torch.tensor([plane[0].size for plane in planes])
        pixels = np.concatenate([plane.reshape(len(plane), -1) for plane in planes], axis=1)
        self.pixels = torch.from_numpy(pixels).to(device)
        self.side = side
        self._first = (sizes.cumsum(0) - sizes).to(device)
        self._width = self.widths.to(device)
        self._rows, self._columns = (steps.to(device) for steps in turned_steps(side))

    def cut(self, patches: "Patches") -> Tensor:
        """Patches, turned. Shape (N, C, side, side), uint8."""
        width = self._width[patches.picture]
        corner = self._first[patches.picture] + patches.top * width + patches.left
        where = self._rows[patches.turn] * width[:, None, None] + self._columns[patches.turn] + corner[:, None, None]
        return self.pixels[:, where].transpose(0, 1)


def turned_steps(side: int) -> tuple[Tensor, Tensor]:
    """For each of the eight flips and rotations: which row and column of a square each of its pixels
    comes from. Each of shape (8, side, side)."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    turned = [(torch.rot90(rows, k), torch.rot90(columns, k)) for k in range(4)]
    turned += [(r.flip(1), c.flip(1)) for r, c in turned]
    return torch.stack([r for r, _ in turned]), torch.stack([c for _, c in turned])


@dataclass(frozen=True)
class Patches:
    """Where N patches lie and how they are turned. Each (N,), int64."""

    picture: Tensor
    top: Tensor
    left: Tensor
    turn: Tensor

    def __len__(self) -> int:
        return len(self.picture)

    def __getitem__(self, which: Tensor) -> "Patches":
        return Patches(self.picture[which], self.top[which], self.left[which], self.turn[which])

    def to(self, device: str) -> "Patches":
        return Patches(*(part.to(device) for part in (self.picture, self.top, self.left, self.turn)))

    def turned(self, turn: Tensor) -> "Patches":
        return Patches(self.picture, self.top, self.left, turn)


def grid_patches(pictures: Pictures) -> Patches:
    """Every patch of the authors' grid, in each of its eight turns: 204,800 in 400 pictures of 180 x 180."""
    places = [
        torch.cartesian_prod(
            torch.tensor([number]),
            torch.arange(0, height - pictures.side + 1, GRID_STRIDE),
            torch.arange(0, width - pictures.side + 1, GRID_STRIDE),
            torch.arange(TURNS),
        )
        for number, (height, width) in enumerate(zip(pictures.heights.tolist(), pictures.widths.tolist(), strict=True))
        if min(height, width) >= pictures.side
    ]
    return Patches(*torch.cat(places).unbind(1))


def random_patches(pictures: Pictures, count: int, draw: torch.Generator) -> Patches:
    """`count` patches, every place in every picture equally likely, none turned."""
    return _random_places(pictures.heights, pictures.widths, pictures.side, count, draw)


def _random_places(heights: Tensor, widths: Tensor, side: int, count: int, draw: torch.Generator) -> Patches:
    across = (widths - side + 1).clamp(min=0)
    places = (heights - side + 1).clamp(min=0) * across
    ends = places.cumsum(0)
    place = torch.randint(int(ends[-1]), (count,), generator=draw)
    picture = torch.searchsorted(ends, place, right=True)
    within = place - (ends - places)[picture]
    return Patches(picture, within // across[picture], within % across[picture], torch.zeros_like(place))


def _require_room(heights: Tensor, widths: Tensor, side: int) -> None:
    if torch.minimum(heights, widths).max() < side:
        raise UsageError(f"--side {side}: no training picture is that large.")


# ---- DnCNN-3 ----------------------------------------------------------------------------


def spoilt_versions(pictures: Sequence[np.ndarray], seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Every picture's luminance in VERSIONS ways: as it is, resized by each scale, and as JPEG; and what each
    should become. The versions of one picture follow each other.

    Returns:
        Inputs and targets, each (H, W), uint8.
    """
    low, high = QUALITIES
    inputs, targets = [], []
    for number, picture in enumerate(pictures):
        clean = degrade.luminance(picture)
        versions = [(clean, clean)]
        for scale in SCALES:
            whole = degrade.crop_to_multiple(picture, scale)
            large = degrade.small_and_large_again(whole, scale)
            versions.append((np.clip(np.floor(large * 255 + 0.5), 0, 255).astype(np.uint8), degrade.luminance(whole)))
        qualities = torch.randint(low, high + 1, (JPEG_COPIES,), generator=generator(seed, "qualities", index=number))
        versions += [(degrade.jpeg(clean, quality), clean) for quality in qualities.tolist()]
        inputs += [spoilt for spoilt, _ in versions]
        targets += [target for _, target in versions]
    return inputs, targets


def shared_patches(versions: Pictures, count: int, draw: torch.Generator) -> tuple[Patches, Tensor]:
    """`count` patches at random places, each given one of the three tasks with equal chance. A place must be
    in every version of its picture: those cropped to a multiple of their scale lack the last rows and columns.

    Returns:
        Patches whose `picture` is the number of a version, and which of them are to be denoised, (N,) bool.

    Raises:
        UsageError: no picture is as large as a patch in every version.
    """
    heights, widths = (sides.view(-1, VERSIONS).amin(dim=1) for sides in (versions.heights, versions.widths))
    _require_room(heights, widths, versions.side)
    patches = _random_places(heights, widths, versions.side, count, draw)
    task = torch.randint(3, (count,), generator=draw)
    scale = torch.randint(len(SCALES), (count,), generator=draw)
    copy = torch.randint(JPEG_COPIES, (count,), generator=draw)
    version = torch.where(task == 0, CLEAN, torch.where(task == 1, SMALL + scale, JPEG + copy))
    return Patches(patches.picture * VERSIONS + version, patches.top, patches.left, patches.turn), task == 0
