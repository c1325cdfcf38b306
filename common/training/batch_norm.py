"""Batch normalization as a compiled step takes it on a CPU, in float32 whatever the maps are in.

S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015, algorithm 1. What torch.compile makes of PyTorch's own takes a
root and two divisions for every pixel, and rounds the mean and the deviation to bfloat16 for the way back where the
maps are in it. Here a pixel takes a multiplication and an addition, and a few of them on the way back.
"""

from typing import Any

import torch
from torch import Tensor, nn

OVER = (0, 2, 3)  # all but the maps


class CompiledBatchNorm2d(nn.BatchNorm2d):
    """Computes by `Normalise` where it is compiled and trained, and as ever anywhere else."""

    momentum: float
    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.numel() // x.shape[1]
        if not (torch.compiler.is_compiling() and self.training and pixels > 1):
            return super().forward(x)
        y, mean, variance = Normalise.apply(x, self.weight, self.bias, self.eps)
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (pixels / (pixels - 1)), self.momentum)
        return y


def use_compiled_norms(model: nn.Module) -> None:
    """Have each batch normalization that tracks its statistics compiled so. Modules stay what they are but for that."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats and module.momentum:
            module.__class__ = CompiledBatchNorm2d


class Normalise(torch.autograd.Function):
    """Maps (N, C, H, W) normalised map by map, times a weight and plus a bias (C); the mean and the variance (C) of
    the batch come with them, without gradients. There are no second derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        maps = _precise(x)
        # Both sums in one pass: of differences from the mean of the first picture, as the squares of large numbers
        # leave nothing of small variances (T. F. Chan, G. H. Golub, R. J. LeVeque, The American Statistician, 1983).
        first = maps[0].mean((1, 2))
        differences = maps - _of_each_map(first)
        difference = differences.mean(OVER)
        variance = (differences.square().mean(OVER) - difference.square()).clamp_min(0)
        mean = first + difference
        inverse_deviation = torch.rsqrt(variance + eps)
        scale = weight * inverse_deviation
        kept = keep(torch.stack([scale, bias - mean * scale, mean, inverse_deviation]))
        ctx.save_for_backward(x, kept)
        ctx.mark_non_differentiable(mean, variance)
        scale, offset, *_ = kept
        return (maps * _of_each_map(scale) + _of_each_map(offset)).to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, (scale, _, mean, inverse_deviation) = ctx.saved_tensors
        centred, dy = _precise(x) - _of_each_map(mean), _precise(dy)
        d_bias, d_weight = dy.sum(OVER), (dy * centred).sum(OVER) * inverse_deviation
        per_pixel = -scale * (1 / (x.numel() // x.shape[1]))
        along_x, constant = per_pixel * inverse_deviation * d_weight, per_pixel * d_bias
        dx = dy * _of_each_map(scale) + centred * _of_each_map(along_x) + _of_each_map(constant)
        return dx.to(x.dtype), d_weight, d_bias, None


@torch.library.custom_op("reproduce::keep", mutates_args=())
def keep(values: Tensor) -> Tensor:
    """The same values. The compiler cannot see so, and therefore does not compute them anew for each pixel."""
    return values.clone()


@keep.register_fake
def _(values: Tensor) -> Tensor:
    return torch.empty_like(values)


def _precise(maps: Tensor) -> Tensor:
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def _of_each_map(values: Tensor) -> Tensor:
    return values[:, None, None]
