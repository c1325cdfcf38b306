"""MNIST as LeNet-5 sees it: a 32x32 field, background -0.1, foreground 1.175 (Sec. II-B),
and the distorted patterns of Section III-B."""

import gzip
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.base.errors import DAMAGED, DataError
from common.data.passports import LocatedData
from common.data.splits import split_hash
from common.training.determinism import generator
from papers.lenet5_1998.model import BACKGROUND, FOREGROUND, IMAGE_SIDE

SIDE = 28
IDX_OF_BYTES = b"\0\0\x08"  # what such a file begins with
STANDIN_TEST = 360  # of scikit-learn's 1,797 digits, the last ones


@dataclass(frozen=True)
class Digits:
    """Images (N, 28, 28) as uint8, 0 the background; labels (N,) as int64."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def split_hash(self) -> str:
        """sha256 over the labels of both parts in their order: which examples train, which test."""
        return split_hash(train=self.train_labels, test=self.test_labels)


def load(data: LocatedData) -> Digits:
    """The digits of the located files, or the stand-in."""
    if data.standin:
        return _scikit_learn_digits()
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = ((part, name) for part in parts for name in data.files if name.startswith(part))  # packed or not
    train_images, train_labels, test_images, test_labels = (
        read_idx((data.folder / name).read_bytes(), part) for part, name in files
    )
    return Digits(train_images, train_labels.long(), test_images, test_labels.long())


def read_idx(content: bytes, name: str) -> Tensor:
    """An idx file of bytes, gzipped or not, as a uint8 tensor.

    Raises:
        DataError: it is not such a file.
    """
    try:
        raw = content if content.startswith(IDX_OF_BYTES) else gzip.decompress(content)
        dimensions = raw[3]
        shape = np.frombuffer(raw, ">u4", count=dimensions, offset=4).tolist()
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions)
        if not raw.startswith(IDX_OF_BYTES):
            raise ValueError("not an idx file of bytes")
        return torch.from_numpy(values.reshape(shape).copy())
    except DAMAGED as error:
        raise DataError(f"{name}: {error}.") from None


def _scikit_learn_digits() -> Digits:
    """Real digits from 43 writers, 8x8, enlarged to 20x20 in the middle of a 28x28 image."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
    enlarged = F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = F.pad(enlarged, (4, 4, 4, 4))[:, 0].round().to(torch.uint8)
    labels = torch.from_numpy(digits.target).long()
    first = len(labels) - STANDIN_TEST
    return Digits(images[:first], labels[:first], images[first:], labels[first:])


def as_patterns(images: Tensor, padding: str = "background") -> Tensor:
    """Images (N, 28, 28) as uint8 to patterns (N, 32, 32) as float32.

    Args:
        padding: "background" surrounds the image with -0.1; "replicate" repeats its edge.
    """
    margin = (IMAGE_SIDE - SIDE) // 2
    around = (margin, margin, margin, margin)
    if padding == "replicate":
        field = F.pad(images[:, None].float(), around, mode="replicate")[:, 0]
    else:
        field = F.pad(images, around).float()
    return field / 255 * (FOREGROUND - BACKGROUND) + BACKGROUND


@dataclass(frozen=True)
class Distortion:
    """Half-widths of the uniform distributions of Section III-B's planar affine
    distortions; the paper names their kinds and prints no amounts."""

    shift: float  # pixels, each way
    scale: float  # natural logarithm
    squeeze: float  # natural logarithm: width times e^q, height times e^-q
    shear: float  # pixels sideways per pixel of height


def distort(images: Tensor, amounts: Tensor) -> Tensor:
    """Distort each image by its own affine map, bilinearly.

    Args:
        images: (N, 28, 28), uint8.
        amounts: (N, 5): shift right, shift down (pixels), scale, squeeze, shear.

    Returns:
        (N, 28, 28), uint8.
    """
    right, down, scale, squeeze, shear = amounts.double().unbind(1)
    width, height = torch.exp(scale + squeeze), torch.exp(scale - squeeze)
    # Sampling goes from the new image back to the old one: the inverse of
    # [[width, shear], [0, height]] after undoing the shift.
    zero = torch.zeros_like(shear)
    back = torch.stack([1 / width, -shear / (width * height), zero, 1 / height], dim=1).view(-1, 2, 2)
    shift = torch.stack([right, down], dim=1)[..., None] * (2 / SIDE)
    theta = torch.cat([back, -back @ shift], dim=2).float()
    grid = F.affine_grid(theta, [len(images), 1, SIDE, SIDE], align_corners=False)
    moved = F.grid_sample(images[:, None].float(), grid, padding_mode="zeros", align_corners=False)
    return moved[:, 0].round().to(torch.uint8)


def distortion_amounts(seed: int, copy: int, count: int, distortion: Distortion) -> Tensor:
    """The amounts for the `copy`-th distorted version of `count` images. Shape (count, 5)."""
    uniform = torch.rand(count, 5, generator=generator(seed, "distortion", index=copy)) * 2 - 1
    d = distortion
    return uniform * torch.tensor([d.shift, d.shift, d.scale, d.squeeze, d.shear])


def distorted_patterns(images: Tensor, which: Tensor, seed: int, distortion: Distortion) -> Tensor:
    """Some patterns of the enlarged training set, as images.

    Args:
        images: the N originals.
        which: (M,) numbers in the enlarged set: k stands for original k % N, as it
            is if k < N, else in its (k // N)-th distorted version.

    Returns:
        (M, 28, 28), uint8.
    """
    count = len(images)
    chosen = images[which % count].clone()
    for copy in (which // count).unique().tolist():
        if copy == 0:
            continue
        rows = (which // count == copy).nonzero()[:, 0]
        amounts = distortion_amounts(seed, copy, count, distortion)[which[rows] % count]
        for part in torch.arange(len(rows)).split(5000):
            chosen[rows[part]] = distort(chosen[rows[part]], amounts[part])
    return chosen
