"""PSNR and SSIM as in the authors' code."""

import torch
import torch.nn.functional as F
from torch import Tensor

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
