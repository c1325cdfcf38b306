"""CIFAR-10 from its binary release: 60,000 pictures of 32x32 in ten classes, A. Krizhevsky,
"Learning Multiple Layers of Features from Tiny Images", 2009.

A record is one byte of label and 3,072 bytes of picture: red, green, blue, each row by row.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.base.errors import DataError, UsageError
from common.data.passports import LocatedData
from common.data.photographs import PHOTOGRAPHS, TRAIN_SHARE, shipped_photograph
from common.data.splits import split_hash

SIDE = 32
CLASSES = 10
FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
PICTURES_PER_FILE = 10_000

# The stand-in: crops of photographs.
PHOTOGRAPH_HEIGHT = 96  # pixels, to which each is reduced, so that a crop shows more than a surface
STANDIN_TRAIN, STANDIN_TEST = 64, 16  # crops a class
STANDIN_SEED = 10


@dataclass(frozen=True)
class Cifar10:
    """Pictures (N, 3, 32, 32) as uint8 and labels (N,) from 0 to 9 as int64."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def split_hash(self) -> str:
        """sha256 over the labels of both parts in their order: which pictures train, which test."""
        return split_hash(train=self.train_labels, test=self.test_labels)


def load(data: LocatedData) -> Cifar10:
    """The pictures of the located files, or the stand-in.

    Raises:
        DataError: as `read_batch`.
    """
    if data.folder is None:
        return _crops_of_photographs()
    folder = data.folder / FOLDER
    images, labels = zip(*(read_batch(folder / name) for name in TRAIN_FILES), strict=True)
    return Cifar10(torch.cat(images), torch.cat(labels), *read_batch(folder / TEST_FILE))


def hold_out(cifar: Cifar10, count: int) -> Cifar10:
    """CIFAR-10 with its last `count` training pictures in the test set's place, unless `count` is 0.

    Raises:
        UsageError: none would be left to train on.
    """
    images, labels = cifar.train_images, cifar.train_labels
    if count >= len(images):
        raise UsageError(f"--held-out {count}: there are {len(images)} to train on.")
    if not count:
        return cifar
    return Cifar10(images[:-count], labels[:-count], images[-count:], labels[-count:])


def on_device(images: Tensor, device: str) -> Tensor:
    """Pictures where they are trained on, as bytes, channels-last."""
    return images.to(device, memory_format=torch.channels_last)


def read_batch(path: Path, pictures: int = PICTURES_PER_FILE) -> tuple[Tensor, Tensor]:
    """One file of the binary release: pictures (N, 3, 32, 32) as uint8, labels (N,) as int64.

    Raises:
        DataError: the file cannot be read, holds a different number of pictures, or has a label above 9.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}.") from None
    record = 1 + 3 * SIDE**2
    if content.size != pictures * record:
        raise DataError(f"{path} holds {content.size:,} bytes instead of {pictures * record:,}.")
    records = content.reshape(pictures, record)
    if (largest := records[:, 0].max()) >= CLASSES:
        raise DataError(f"{path} holds the label {largest}; the largest allowed is {CLASSES - 1}.")
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, SIDE, SIDE).copy())
    return images, torch.from_numpy(records[:, 0].astype(np.int64))


def _crops_of_photographs() -> Cifar10:
    """32x32 crops of ten photographs; no pixel of a training picture is in a test picture."""
    draw = np.random.default_rng(STANDIN_SEED)
    train, test = [], []
    for name in PHOTOGRAPHS:
        photograph = _photograph(name)
        edge = round(TRAIN_SHARE * photograph.shape[2])
        train.append(_crops(photograph[:, :, :edge], STANDIN_TRAIN, draw))
        test.append(_crops(photograph[:, :, edge:], STANDIN_TEST, draw))
    return Cifar10(
        torch.from_numpy(np.concatenate(train)),
        torch.arange(CLASSES).repeat_interleave(STANDIN_TRAIN),
        torch.from_numpy(np.concatenate(test)),
        torch.arange(CLASSES).repeat_interleave(STANDIN_TEST),
    )


def _crops(picture: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """(3, H, W) to (count, 3, 32, 32)."""
    _, height, width = picture.shape
    tops, lefts = draw.integers(height - SIDE + 1, size=count), draw.integers(width - SIDE + 1, size=count)
    return np.stack([picture[:, top : top + SIDE, left : left + SIDE] for top, left in zip(tops, lefts, strict=True)])


def _photograph(name: str) -> np.ndarray:
    """(3, PHOTOGRAPH_HEIGHT, W), uint8."""
    picture = shipped_photograph(name).convert("RGB")
    width = round(picture.width * PHOTOGRAPH_HEIGHT / picture.height)
    small = picture.resize((width, PHOTOGRAPH_HEIGHT), Image.Resampling.BOX)
    return np.asarray(small).transpose(2, 0, 1)
