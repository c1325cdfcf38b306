"""What the tests of several papers' networks share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.training.determinism import generator


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(model: nn.Module) -> float:
    """Of one picture of 224x224, in billions; the model is on the meta device. PyTorch's counter gives two operations
    for each."""
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops() / 2e9


def trained(model: nn.Module, initialise: Callable, seed: int = 0) -> nn.Module:
    """In evaluation mode and as after some training: in batch normalization no scale is 1, no mean 0."""
    draw = generator(seed, "test")
    initialise(model, draw)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low in ((layer.weight, 0.5), (layer.bias, -0.2), (layer.running_mean, -0.2)):
                tensor.data.uniform_(low, low + 0.5, generator=draw)
            layer.running_var.uniform_(0.8, 1.5, generator=draw)
    return model.eval()


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, side, side, generator=generator(seed, "pictures"))
