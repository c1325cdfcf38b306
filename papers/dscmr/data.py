"""Pairs of a picture's and a text's features with one label: the authors' .mat files, the features
that the Wikipedia dataset itself came with in 2010, and a seeded stand-in."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.base.errors import DataError
from common.data.matlab import read_matrix
from common.data.passports import LocatedData, find_passport
from common.data.splits import split_hash
from common.training.determinism import generator

# The stand-in: how many pairs, drawn around how many centres.
STANDIN_PAIRS = {"train": 400, "validation": 40, "test": 60}
STANDIN_CLASSES, STANDIN_IMAGE_SIZE, STANDIN_TEXT_SIZE = 10, 64, 20
LARGEST_LABEL = 2**53  # up to which MATLAB's own numbers hold every whole one


@dataclass(frozen=True)
class Part:
    """N pairs: images (N, image size) and texts (N, text size) as float32, labels (N,) as int64."""

    images: Tensor
    texts: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, which: slice) -> "Part":
        return Part(self.images[which], self.texts[which], self.labels[which])


@dataclass(frozen=True)
class Pairs:
    """Three parts; `validation` is empty where the files hold none."""

    train: Part
    validation: Part
    test: Part
    classes: int

    def split_hash(self) -> str:
        """sha256 over the labels of the parts in their order: which pairs train, which are measured."""
        return split_hash(train=self.train.labels, validation=self.validation.labels, test=self.test.labels)


def load(data: LocatedData) -> Pairs:
    """The pairs of the located files, or the stand-in.

    The pairs that are not trained on are in one file. Its last rows are the test set, as many as
    the passport says; those before them are for validation. This is how an older revision of the
    authors' code scores the last 462 of Wikipedia's 693.

    Raises:
        DataError: a file is not what it should be.
    """
    if data.standin:
        return _stand_in()
    train, rest = _shallow(data) if data.edition == "shallow" else _authors_layout(data)
    tested = find_passport(data.dataset, Path(__file__).parent).splits["test"]
    if len(rest) < tested:
        raise DataError(f"{data.folder}: {len(rest)} pairs to test on, but there should be {tested}.")
    if train.images.shape[1] != rest.images.shape[1] or train.texts.shape[1] != rest.texts.shape[1]:
        raise DataError(f"{data.folder}: the features of the training and the test files differ in length.")
    first = len(rest) - tested
    found = torch.cat([train.labels, rest.labels]).unique()
    classes = len(found)
    if int(found[0]) != 0 or int(found[-1]) != classes - 1:
        said = f"these {classes} classes go from {found[0]} to {found[-1]}"
        raise DataError(f"{data.folder}: labels count from 0 and leave none out, but {said}.")
    return Pairs(train, rest.rows(slice(first)), rest.rows(slice(first, None)), classes)


def _authors_layout(data: LocatedData) -> tuple[Part, Part]:
    """train_img.mat, train_txt.mat, train_img_lab.mat and the same for test, each holding one matrix
    of its own name; a pair is a row, its label counts from 0."""
    (name,) = (name for name in data.files if name.endswith("train_img.mat"))
    before = name.removesuffix("train_img.mat")
    train, rest = (
        [_matrix(data, f"{before}{part}_{what}.mat", f"{part}_{what}") for what in ("img", "txt", "img_lab")]
        for part in ("train", "test")
    )
    return _part(data.folder / before, *train), _part(data.folder / before, *rest)


def _shallow(data: LocatedData) -> tuple[Part, Part]:
    """The Wikipedia dataset's own features: SIFT bags of words (128) and LDA topics (10), unscaled."""
    return tuple(
        _part(
            data.folder,
            _matrix(data, "raw_features.mat", f"I_{short}"),
            _matrix(data, "raw_features.mat", f"T_{short}"),
            _classes(data.folder / f"{long}set_txt_img_cat.list"),
        )
        for short, long in (("tr", "train"), ("te", "test"))
    )


def _matrix(data: LocatedData, file: str, variable: str) -> np.ndarray:
    matrix = read_matrix(data.folder / file, variable, file in data.vouched)
    if matrix.dtype.kind not in "fiu" or matrix.ndim != 2 or matrix.size == 0 or not np.isfinite(matrix).all():
        raise DataError(f"{data.folder / file}: {variable} is not a matrix of finite numbers.")
    return matrix


def _classes(file: Path) -> np.ndarray:
    """Each line: text, picture and class, counted from 1. Shape (N, 1)."""
    try:
        return np.loadtxt(file, dtype=np.int64, usecols=[2], ndmin=2) - 1
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: {error}.") from None


def _part(folder: Path, images: np.ndarray, texts: np.ndarray, labels: np.ndarray) -> Part:
    if not len(images) == len(texts) == len(labels):
        raise DataError(f"{folder}: {len(images)} pictures, {len(texts)} texts and {len(labels)} labels do not match.")
    if labels.shape[1] != 1 or (labels != np.floor(labels)).any() or np.abs(labels).max() > LARGEST_LABEL:
        said = f"{labels.min():g} to {labels.max():g} in {labels.shape[1]} column{'s' * (labels.shape[1] != 1)}"
        raise DataError(f"{folder}: labels must be whole numbers, one in a row, not {said}.")
    images, texts = (torch.from_numpy(features.astype(np.float32)) for features in (images, texts))
    return Part(images, texts, torch.from_numpy(labels[:, 0].astype(np.int64)))


def _stand_in() -> Pairs:
    """Pairs around the centres of their classes, seen through two random maps; not for the paper's
    numbers. The classes overlap, so that there is something to learn and something left to miss."""
    count = sum(STANDIN_PAIRS.values())
    draw = generator(0, "stand-in")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    labels = torch.randint(STANDIN_CLASSES, (count,), generator=draw)
    meaning = normal(STANDIN_CLASSES, 8)[labels] + 0.5 * normal(count, 8)
    images, texts = (
        (meaning @ normal(8, size) + normal(count, size)).relu() for size in (STANDIN_IMAGE_SIZE, STANDIN_TEXT_SIZE)
    )
    everything = Part(images, texts, labels)
    ends = np.cumsum([0, *STANDIN_PAIRS.values()]).tolist()
    parts = (everything.rows(slice(*ends[i : i + 2])) for i in range(3))
    return Pairs(*parts, classes=STANDIN_CLASSES)
