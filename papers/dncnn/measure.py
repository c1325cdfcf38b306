"""PSNR and SSIM, and the noise of the test sets, as in the authors' code."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.determinism import generator
from papers.dncnn import degrade
from papers.dncnn.model import denoise

PEAK = 255.0
WINDOW, WINDOW_SIGMA = 11, 1.5  # of SSIM's Gaussian
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def to_8bit(picture: Tensor) -> Tensor:
    """Values 0 to 1 as whole numbers 0 to 255, saturated; halves go up, as in Matlab. Still floating."""
    return (picture.double() * PEAK + 0.5).floor().clamp(0, PEAK)


def psnr(picture: Tensor, label: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over all channels, in dB.

    Args:
        picture, label: (N, C, H, W), 0 to 255.

    Returns:
        (N,), float64. Infinite where there is no difference.
    """
    error = (picture.double() - label.double()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(PEAK**2 / error)


def ssim(picture: Tensor, label: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11 x 11, whole windows only.

    Args:
        picture, label: (N, 1, H, W), 0 to 255.

    Returns:
        (N,), float64.
    """
    a, b = picture.double(), label.double()
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a**2
    variance_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return (likeness / ((mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2))).mean(dim=(1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """The window's weighted means, rows first: (N, 1, H, W) to (N, 1, H-10, W-10)."""
    distance = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-(distance**2) / (2 * WINDOW_SIGMA**2))
    weights = weights / weights.sum()
    return F.conv2d(F.conv2d(x, weights[None, None, :, None]), weights[None, None, None, :])


# ---- test sets --------------------------------------------------------------------------

PIXELS_AT_ONCE = {"cpu": 400_000, "cuda": 4_000_000}


def as_label(picture: np.ndarray) -> Tensor:
    """uint8 (H, W) or (H, W, 3) to float (C, H, W), still 0 to 255."""
    return torch.from_numpy(np.atleast_3d(picture).transpose(2, 0, 1).copy()).float()


def labels_of(pictures: Iterable[np.ndarray], channels: int) -> list[Tensor]:
    """What denoising should give back: of colour pictures only the luminance, where the network is for grey ones."""
    return [as_label(degrade.luminance(picture) if channels == 1 else picture) for picture in pictures]


def alike(labels: list[Tensor], device: str) -> list[list[int]]:
    """The numbers of pictures, in groups of one shape that are computed at once."""
    by_shape: dict[torch.Size, list[int]] = {}
    for number, label in enumerate(labels):
        by_shape.setdefault(label.shape, []).append(number)
    groups = []
    for shape, numbers in by_shape.items():
        size = max(1, PIXELS_AT_ONCE[device] // (shape[1] * shape[2]))
        groups += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return groups


def noise_of_picture(test: str, number: int, draw: int, shape: torch.Size) -> Tensor:
    """N(0, 1) for one picture of a test set, from a generator of its own: the same for every
    network and noise level, another for every `draw`."""
    return torch.randn(shape, generator=generator(draw, f"noise on {test}", index=number))


Groups = Iterable[tuple[list[int], Tensor, Tensor]]


def noisy_groups(
    labels: list[Tensor], test: str, sigma: float, draw: int, device: str, quantised: bool = False
) -> Groups:
    """Add noise to the pictures of a test set.

    Args:
        labels: each (C, H, W), 0 to 255.
        sigma: of the noise, in units of 8-bit values. It is added in float and the sum neither clipped nor rounded,
            as in the authors' code.
        quantised: the common mistake: the noisy picture goes through 8 bits.

    Yields:
        The numbers of some pictures; noisy (N, C, H, W), 0 to 1 and beyond; and what they should become, 0 to 255.
    """
    for numbers in alike(labels, device):
        label = torch.stack([labels[number] for number in numbers])
        noise = torch.stack([noise_of_picture(test, number, draw, labels[number].shape) for number in numbers])
        noisy = (label + sigma * noise) / PEAK
        if quantised:
            noisy = (to_8bit(noisy) / PEAK).float()
        yield numbers, noisy.to(device), label.to(device)


def denoised_groups(network: nn.Module, groups: Groups) -> Groups:
    """The noise taken off again."""
    for numbers, noisy, label in groups:
        yield numbers, denoise(network, noisy), label


def mean_psnr(network: nn.Module, groups: Groups) -> float:
    """Of 8-bit outputs."""
    found = [psnr(to_8bit(denoised), label) for _, denoised, label in denoised_groups(network, groups)]
    return torch.cat(found).mean().item()
