"""Small flower photographs of five classes: 1,000 pictures whose shorter side is 128 pixels, and their split."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from PIL import Image
from torch import Tensor

from common.base.errors import DataError
from common.data.image_folder import LabelledPictures, as_tensor, labelled, read_image_folder, share_of_each_class
from common.data.passports import LocatedData
from common.data.photographs import shipped_photograph
from common.data.pictures import NO_PICTURE

CLASSES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
OF_EACH_CLASS = 200
SHORTER_SIDE = 128
TEST_SHARE = 0.25  # of each class
HELD_OUT_SHARE = 0.2  # of each class's training pictures
ARCHIVE = "flower_photos.tgz"

STANDIN = ("astronaut.png", "china.jpg", "coffee.png", "flower.jpg", "motorcycle_left.png")  # a class each
STANDIN_ROWS, STANDIN_COLUMNS = 4, 6  # into which each is cut


@dataclass(frozen=True)
class Split:
    """Indices of pictures, sorted. Each (N,), int64."""

    train: Tensor
    test: Tensor


def load(data: LocatedData) -> LabelledPictures:
    """The pictures of the located files, or of the stand-in: 120 pieces of five photographs.

    Raises:
        DataError: a file cannot be read as a picture, or the archive cannot be read.
    """
    if data.folder is None:
        return labelled(_standin())
    if ARCHIVE in data.files:
        return labelled(_from_archive(data.folder / ARCHIVE))
    return read_image_folder(data.folder, CLASSES)


def split(pictures: LabelledPictures, held_out: bool = False) -> Split:
    """The same split for every seed of a run: a quarter of each class is for testing, drawn once and for all.

    Args:
        held_out: for choices made before anything is tested: a fifth of each class's training pictures takes the
            place of the test pictures, which are then in neither part.
    """
    test = share_of_each_class(pictures.labels, TEST_SHARE, seed=0)
    train = _others(torch.arange(len(pictures.labels)), test)
    if held_out:
        test = train[share_of_each_class(pictures.labels[train], HELD_OUT_SHARE, seed=1)]
        train = _others(train, test)
    return Split(train, test)


def _others(numbers: Tensor, without: Tensor) -> Tensor:
    return numbers[~torch.isin(numbers, without)]


def _from_archive(archive: Path) -> Iterator[tuple[str, Tensor]]:
    """The first pictures of each class by name, resized. They are read from the archive; nothing is unpacked."""
    try:
        with tarfile.open(archive) as files:
            # In the order of the archive: going back in it means decompressing it from its beginning again.
            for member in sorted(_first_of_each_class(files), key=lambda member: member.offset):
                content = files.extractfile(member)
                assert content is not None  # it is a regular file
                picture = Image.open(content)
                yield "/".join(PurePosixPath(member.name).parts[-2:]), as_tensor(_small(picture))
    except (*NO_PICTURE, tarfile.TarError) as error:
        raise DataError(f"{archive} cannot be read ({error}). Remove it and fetch it again.") from None


def _first_of_each_class(files: tarfile.TarFile) -> list[tarfile.TarInfo]:
    by_name = sorted((member for member in files if member.isfile()), key=lambda member: member.name)
    return [
        member
        for name in CLASSES
        for member in [m for m in by_name if PurePosixPath(m.name).match(f"{name}/*.jpg")][:OF_EACH_CLASS]
    ]


def _small(picture: Image.Image) -> Image.Image:
    factor = SHORTER_SIDE / min(picture.size)
    size = [round(length * factor) for length in picture.size]
    return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _standin() -> Iterator[tuple[str, Tensor]]:
    for name in STANDIN:
        photograph = shipped_photograph(name)
        width, height = photograph.width // STANDIN_COLUMNS, photograph.height // STANDIN_ROWS
        for row in range(STANDIN_ROWS):
            for column in range(STANDIN_COLUMNS):
                left, top = column * width, row * height
                piece = photograph.crop((left, top, left + width, top + height))
                yield f"{Path(name).stem}/{row}-{column}", as_tensor(_small(piece))
