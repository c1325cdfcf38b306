"""Pictures in the layout of torchvision's ImageFolder: a folder for each class, named after it.

They are decoded once, and stay in memory as bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.base.errors import DataError
from common.data.passports import class_folders, visible_files
from common.data.pictures import NO_PICTURE, opened


@dataclass(frozen=True)
class LabelledPictures:
    """N pictures and their classes.

    Attributes:
        names: class/file, of each.
        pictures: each (3, H, W), uint8, of its own size.
        labels: (N,), int64: the place of each picture's class in `classes`.
        classes: their names, sorted.
    """

    names: tuple[str, ...]
    pictures: tuple[Tensor, ...]
    labels: Tensor
    classes: tuple[str, ...]


def labelled(pictures: Iterable[tuple[str, Tensor]]) -> LabelledPictures:
    """Pictures by their names class/file, in the order of the names."""
    by_name = sorted(pictures, key=lambda named: named[0])
    names = tuple(name for name, _ in by_name)
    of_each = [name.split("/")[0] for name in names]
    classes = tuple(sorted(set(of_each)))
    label = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([label[name] for name in of_each])
    return LabelledPictures(names, tuple(picture for _, picture in by_name), labels, classes)


def read_image_folder(folder: Path, classes: Sequence[str] | None = None) -> LabelledPictures:
    """Every picture of every class. Hidden files, and what Windows puts into folders, are skipped.

    Args:
        classes: the folders that are read; by default all.

    Raises:
        DataError: there are no classes, a class is empty, or a file cannot be read as a picture.
    """
    if classes is None:
        classes = class_folders(folder)
    if not classes:
        raise DataError(f"{folder} holds no folders; there must be one for each class.")
    return labelled((f"{name}/{file.name}", read_picture(file)) for name in classes for file in _files(folder / name))


def _files(folder: Path) -> list[Path]:
    try:
        files = visible_files(folder)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}.") from None
    if not files:
        raise DataError(f"{folder} holds no pictures.")
    return files


def read_picture(path: Path) -> Tensor:
    """A picture in colour, (3, H, W), uint8; grey ones have three equal channels.

    Raises:
        DataError: the file cannot be read as a picture.
    """
    try:
        with opened(path) as picture:
            return as_tensor(picture)
    except NO_PICTURE as error:
        raise DataError(f"{path} cannot be read as a picture ({error}).") from None


def as_tensor(picture: Image.Image) -> Tensor:
    """(3, H, W), uint8."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def share_of_each_class(labels: Tensor, share: float, seed: int) -> Tensor:
    """A share of each class, drawn at random.

    Args:
        labels: (N,), int64.

    Returns:
        Numbers from 0 to N - 1, sorted.
    """
    draw = torch.Generator().manual_seed(seed)
    drawn = []
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        order = torch.randperm(len(members), generator=draw)
        drawn.append(members[order[: round(share * len(members))]])
    return torch.cat(drawn).sort().values
