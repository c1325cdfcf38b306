"""DnCNN as printed in 2017.

K. Zhang, W. Zuo, Y. Chen, D. Meng, L. Zhang, "Beyond a Gaussian Denoiser:
Residual Learning of Deep CNN for Image Denoising", IEEE Transactions on Image
Processing 26(7), 2017: Section III.

The network maps a noisy picture y = x + v to its residual R(y), an estimate of
the noise v; the denoised picture is y - R(y).
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from common.training.winograd import use_winograd

FEATURES = 64  # maps of every layer but the last (Sec. III-A)
KERNEL = 3
EPSILON = 1e-4  # of batch normalization, as in MatConvNet, which the authors used
TILE = 512  # pixels; a tile's 64 maps take 75 MB in float32


class DnCNN(nn.Module):
    """Conv+ReLU, then depth - 2 times Conv+BN+ReLU, then Conv; stride 1, zeros around the picture.

    As in the authors' code, only the first and the last convolution have biases; in
    between, batch normalization has its own. Without it every convolution has one, as
    in a network whose batch normalization is merged: so are the weights that the
    authors released.

    Args:
        depth: 17 for a known noise level, 20 for the other tasks (Sec. III-A).
        channels: 1 for grey, 3 for colour.
        bn_momentum: the share of the newest batch in the moments that a test uses.
        batch_norm: whether there is any.
        residual: whether the layers give the residual, or the clean picture, as in half of Fig. 2. The network gives
            the residual all the same: y minus the clean picture. So its loss is the same expression (eq. 1), which
            then is how far the layers are from the clean picture.
    """

    def __init__(
        self,
        depth: int,
        channels: int = 1,
        bn_momentum: float = 0.1,
        batch_norm: bool = True,
        residual: bool = True,
    ):
        super().__init__()
        self.residual = residual

        def convolution(inputs: int, outputs: int, bias: bool) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, KERNEL, padding=KERNEL // 2, bias=bias)

        layers = [convolution(channels, FEATURES, True), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers.append(convolution(FEATURES, FEATURES, not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(FEATURES, eps=EPSILON, momentum=bn_momentum))
            layers.append(nn.ReLU(inplace=True))
        layers.append(convolution(FEATURES, channels, True))
        self.layers = nn.Sequential(*layers)

    def forward(self, y: Tensor) -> Tensor:
        """Noisy pictures (N, C, H, W), values 0 to 1 and beyond, to residuals of the same shape, whatever H and W."""
        return self.layers(y) if self.residual else y - self.layers(y)


class Difference(nn.Module):
    """The residual y - F(y) of layers F that give the clean picture."""

    def __init__(self, layers: nn.Sequential):
        super().__init__()
        self.layers = layers

    def forward(self, y: Tensor) -> Tensor:
        return y - self.layers(y)


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def receptive_field(model: nn.Module) -> int:
    """Pixels, each way, that one output depends on: 2 depth + 1 (Sec. III-A)."""
    return 1 + sum(layer.kernel_size[0] - 1 for layer in convolutions(model))


@torch.no_grad()
def initialise(model: DnCNN, how: Literal["he", "authors"], generator: torch.Generator) -> None:
    """Set the initial weights; biases are zero.

    "he": N(0, 2 / fan-in), the paper's reference [34], and batch normalization that
    changes nothing. "authors": their code draws every weight, the first layer's and
    the scales of batch normalization too, from N(0, 2 / (9 * 64)); the test moments
    start at mean 0 and standard deviation 0.01.
    """
    authors = math.sqrt(2 / (KERNEL**2 * FEATURES))
    for module in model.layers:
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, authors if how == "authors" else math.sqrt(2 / fan_in), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d) and how == "authors":
            module.weight.normal_(0, authors, generator=generator)
            module.running_var.fill_(0.01**2)


@torch.no_grad()
def merge_batch_norm(model: DnCNN) -> nn.Module:
    """The same function for inference, with every batch normalization merged into the convolution before it."""
    layers: list[nn.Module] = []
    for module in model.layers:
        if isinstance(module, nn.BatchNorm2d):
            layers[-1] = _merged(layers[-1], module)
        else:
            layers.append(module)
    merged = nn.Sequential(*layers)
    return (merged if model.residual else Difference(merged)).eval()


def _merged(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    merged = nn.Conv2d(
        convolution.in_channels, convolution.out_channels, KERNEL, padding=KERNEL // 2, device=scale.device
    )
    merged.weight.copy_(convolution.weight * scale[:, None, None, None])
    merged.bias.copy_(norm.bias - norm.running_mean * scale)
    return merged


def for_inference(model: DnCNN) -> nn.Module:
    """Merged, and with the memory order and the algorithm in which convolutions are fastest. The model is left in
    evaluation mode; layers that have no batch normalization share its weights."""
    network = merge_batch_norm(model.eval()).to(memory_format=torch.channels_last)
    use_winograd(network)
    return network


@torch.inference_mode()
def denoise(
    network: nn.Module, noisy: Tensor, tile: int = TILE, advance: Callable[[int], None] | None = None
) -> Tensor:
    """y - R(y), tile by tile, so that pictures of any size fit into memory.

    A tile is computed with a margin so wide that none of its pixels depends on where
    the margin ends; where it ends with the picture, zeros follow, as without tiles.

    Args:
        noisy: (N, C, H, W).
        tile: the largest height and width computed at once, without the margin.
        advance: called after each tile with the number of values in it, to show progress.

    Returns:
        (N, C, H, W).
    """
    margin = receptive_field(network) // 2
    denoised = torch.empty_like(noisy)
    height, width = noisy.shape[2:]
    for rows, outer_rows, inner_rows in _spans(height, tile, margin):
        for columns, outer_columns, inner_columns in _spans(width, tile, margin):
            part = noisy[:, :, outer_rows, outer_columns].contiguous(memory_format=torch.channels_last)
            denoised[:, :, rows, columns] = (part - network(part))[:, :, inner_rows, inner_columns]
            if advance:
                advance(denoised[:, :, rows, columns].numel())
    return denoised


def _spans(length: int, tile: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    """Tiles along one side: where each lies, the same with its margin, and where it lies in that."""
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        first, last = max(0, start - margin), min(length, stop + margin)
        yield slice(start, stop), slice(first, last), slice(start - first, stop - first)
