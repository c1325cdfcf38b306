"""The pictures of a test set with noise on them, and what a network makes of them, as in the authors' code."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from papers.dncnn import degrade
from papers.dncnn.matlab_noise import randn
from papers.dncnn.model import denoise
from papers.dncnn.scores import PEAK, psnr, to_8bit

PIXELS_AT_ONCE = {"cpu": 400_000, "cuda": 1_000_000}


def as_label(picture: np.ndarray) -> Tensor:
    """uint8 (H, W) or (H, W, 3) to float (C, H, W), still 0 to 255."""
    return torch.from_numpy(np.atleast_3d(picture).transpose(2, 0, 1).copy()).float()


def labels_of(pictures: Iterable[np.ndarray], channels: int) -> list[Tensor]:
    """What denoising should give back: of colour pictures only the luminance, where the network is for grey ones."""
    return [as_label(degrade.luminance(picture) if channels == 1 else picture) for picture in pictures]


def groups_of_one_shape(labels: list[Tensor], device: str) -> list[list[int]]:
    """The numbers of pictures that are computed at once."""
    by_shape: dict[torch.Size, list[int]] = {}
    for number, label in enumerate(labels):
        by_shape.setdefault(label.shape, []).append(number)
    groups = []
    for shape, numbers in by_shape.items():
        size = max(1, PIXELS_AT_ONCE[device] // (shape[1] * shape[2]))
        groups += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return groups


Groups = Iterable[tuple[list[int], Tensor, Tensor]]


def noisy_groups(labels: list[Tensor], sigma: float, device: str, quantised: bool = False) -> Groups:
    """Add the authors' noise to the pictures of a test set.

    Args:
        labels: each (C, H, W), 0 to 255.
        sigma: of the noise, in units of 8-bit values. It is added in float and the sum neither clipped nor rounded,
            as in the authors' code.
        quantised: the common mistake: the noisy picture goes through 8 bits.

    Yields:
        The numbers of some pictures; noisy (N, C, H, W), 0 to 1 and beyond; and what they should become, 0 to 255.
    """
    for numbers in groups_of_one_shape(labels, device):
        label = torch.stack([labels[number] for number in numbers])
        noisy = label.double() / PEAK + sigma / PEAK * randn(label.shape[1:])
        if quantised:
            noisy = to_8bit(noisy) / PEAK
        yield numbers, noisy.float().to(device), label.to(device)


def denoised_groups(network: nn.Module, groups: Groups) -> Groups:
    """The noise taken off again."""
    for numbers, noisy, label in groups:
        yield numbers, denoise(network, noisy), label


def mean_psnr(network: nn.Module, groups: Groups) -> float:
    """Of 8-bit outputs."""
    found = [psnr(to_8bit(denoised), label) for _, denoised, label in denoised_groups(network, groups)]
    return torch.cat(found).mean().item()
