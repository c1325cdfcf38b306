"""ImageNet's classification task (ILSVRC 2012): 1,281,167 pictures to train on and 50,000 to test on, in 1,000 classes,
each class a folder in train/ and in val/. They stay on the disk as JPEG files and are decoded when they are asked for.
What counts is whether the first guess is right, and whether one of the first five is.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.base.errors import DataError
from common.data.image_folder import read_picture
from common.data.passports import LocatedData, class_folders, visible_files
from common.data.photographs import PHOTOGRAPHS, TRAIN_SHARE, shipped_photograph
from common.data.splits import split_hash

TRAIN, TEST = "train", "val"
JPEG = [0xFF, 0xD8]  # the first bytes; one of ImageNet's files is a PNG by another name
GUESSES = 5  # of which one must be right, for the top-5 error

# The stand-in: crops of photographs.
PHOTOGRAPH_HEIGHT = 192  # pixels, to which each is reduced
HEIGHTS = (80, 120)  # of a crop, in pixels; as wide as it is high, or a third wider
STANDIN_TRAIN, STANDIN_TEST = 12, 4  # crops a class
STANDIN_SEED = 12


class Encoded(Sequence[Tensor]):
    """Pictures as files, or as what would be in them.

    Args:
        files: paths, or JPEG data.
    """

    def __init__(self, files: Sequence[str] | Sequence[bytes]):
        # One block of memory rather than a million objects, which every process that decodes would come to copy.
        self.files = np.array(files) if isinstance(files[0], str) else files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor:  # type: ignore[override]  # nobody asks for a slice
        """A picture (3, H, W), uint8, in colour.

        Raises:
            DataError: the file cannot be read as a picture.
        """
        from torchvision.io import ImageReadMode, decode_jpeg, read_file

        file = self.files[number]
        if isinstance(file, bytes):
            return decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), ImageReadMode.RGB)
        try:
            content = read_file(file)
            if content[: len(JPEG)].tolist() == JPEG:
                return decode_jpeg(content, ImageReadMode.RGB)
        except RuntimeError as error:
            raise DataError(f"{file} cannot be read as a picture ({str(error).splitlines()[0]}).") from None
        return read_picture(Path(file))  # a damaged PNG crashes torchvision's decoder


@dataclass(frozen=True)
class Part:
    """N pictures.

    Attributes:
        names: class/file, of each.
        labels: (N,), int64: the place of each picture's class among the sorted ones.
        pictures: each (3, H, W), uint8, of its own size.
    """

    names: Sequence[str]
    labels: Tensor
    pictures: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class ImageNet:
    train: Part
    test: Part
    classes: int

    def split_hash(self) -> str:
        """sha256 over the names of both parts."""
        return split_hash(train=self.train.names, test=self.test.names)


def mistakes(said: Tensor, labels: Tensor) -> Tensor:
    """How many pictures are classified wrongly: by the first guess, and by each of the first five.

    Args:
        said: what a network says of each class, (N, classes).
        labels: (N,), on the same device.

    Returns:
        (2,), int64, there.
    """
    right = said.topk(min(GUESSES, said.shape[1])).indices == labels[:, None]
    return torch.stack([(~right[:, 0]).sum(), (~right.any(1)).sum()])


def errors(wrong: Tensor, pictures: int, classes: int) -> dict[str, float]:
    """Top-1 and top-5 error in percent, from `mistakes`; where there are only five classes, top-1 alone."""
    names = ("top1_error", "top5_error")[: 2 if classes > GUESSES else 1]
    return {name: 100 * count / pictures for name, count in zip(names, wrong.tolist(), strict=False)}


def load(data: LocatedData) -> ImageNet:
    """The located files, or the stand-in: 160 crops of ten photographs.

    Raises:
        DataError: the two parts have different classes.
    """
    if data.folder is None:
        return _crops_of_photographs()
    classes = class_folders(data.folder / TRAIN)
    if classes != class_folders(data.folder / TEST):
        raise DataError(f"{data.folder}: {TRAIN}/ and {TEST}/ have different classes.")
    return ImageNet(_part(data.folder / TRAIN, classes), _part(data.folder / TEST, classes), len(classes))


def _part(folder: Path, classes: list[str]) -> Part:
    names, labels = [], []
    for label, name in enumerate(classes):
        files = [f"{name}/{file.name}" for file in visible_files(folder / name)]
        names += files
        labels += [label] * len(files)
    return Part(names, torch.tensor(labels), Encoded([f"{folder}/{name}" for name in names]))


def _crops_of_photographs() -> ImageNet:
    """No pixel of a training picture is in a test picture."""
    draw = np.random.default_rng(STANDIN_SEED)
    train, test = [], []
    for name in PHOTOGRAPHS:
        photograph = shipped_photograph(name).convert("RGB")
        width = round(photograph.width * PHOTOGRAPH_HEIGHT / photograph.height)
        photograph = photograph.resize((width, PHOTOGRAPH_HEIGHT))
        edge = round(TRAIN_SHARE * width)
        train += _crops(photograph.crop((0, 0, edge, PHOTOGRAPH_HEIGHT)), STANDIN_TRAIN, draw)
        test += _crops(photograph.crop((edge, 0, width, PHOTOGRAPH_HEIGHT)), STANDIN_TEST, draw)
    return ImageNet(_standin_part(train, STANDIN_TRAIN), _standin_part(test, STANDIN_TEST), len(PHOTOGRAPHS))


def _crops(picture: Image.Image, count: int, draw: np.random.Generator) -> list[bytes]:
    files = []
    for _ in range(count):
        height = int(draw.integers(*HEIGHTS))
        height, width = min(height, picture.height), min(height * 4 // 3, picture.width)
        left, top = (int(draw.integers(room + 1)) for room in (picture.width - width, picture.height - height))
        file = io.BytesIO()
        picture.crop((left, top, left + width, top + height)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def _standin_part(files: list[bytes], of_each: int) -> Part:
    names = [f"{Path(name).stem}/{number}" for name in PHOTOGRAPHS for number in range(of_each)]
    return Part(names, torch.arange(len(PHOTOGRAPHS)).repeat_interleave(of_each), Encoded(files))
