"""Plain and residual networks as printed in 2015.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition",
CVPR 2016: Table 1 has the networks for ImageNet, Section 4.2 those for CIFAR-10.

A block computes y = F(x, {W_i}) + x (Eqn. 1), or y = F(x, {W_i}) + W_s x where the
two differ in size (Eqn. 2), and a ReLU follows the addition. The plain network is
the same without the addition.

Weights are kept channels-last, the memory order in which convolutions are fastest;
so are the feature maps, whatever the order of the pictures.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.errors import UsageError

# "none" is the plain network. Where F(x) and x differ in size, A pads with zeros and B projects; C always projects.
Shortcuts = Literal["none", "A", "B", "C"]
# Which convolution of a bottleneck has the stride: the first, as in the paper, or the second, as in
# fb.resnet.torch and torchvision, where that network is called version 1.5.
StrideAt = Literal["1x1", "3x3"]

CIFAR_MAPS = (16, 32, 64)  # Sec. 4.2; the maps have 32, 16 and 8 pixels a side
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)  # Table 6
IMAGENET_MAPS = (64, 128, 256, 512)  # Table 1
IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BOTTLENECK_FROM = 50  # layers; Table 1
EXPANSION = 4  # a bottleneck's output has four times the maps of its 3x3 convolution

# Of batch normalization the paper gives neither. These are PyTorch's and those of fb.resnet.torch, with
# which Facebook reproduced the paper. In their released weights the authors have plain averages over many pictures,
# taken after training, in the place of the running moments.
EPSILON = 1e-5
MOMENTUM = 0.1  # the share of the newest batch in the moments that a test uses


class Block(nn.Module):
    """Fig. 2: relu(F(x) + shortcut(x)), or relu(F(x)) where there is no shortcut.

    Args:
        residual: F, up to the batch normalization after its last convolution.
        shortcut: what is added to it.
    """

    def __init__(self, residual: nn.Module, shortcut: nn.Module | None):
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.residual(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return F.relu(y, inplace=True)


class PaddedIdentity(nn.Module):
    """Option A: the identity on every `stride`-th pixel, with zeros for the maps that x does not have.

    It has no parameters. The paper doesn't say where the zeros go; here they come after x.
    """

    def __init__(self, new_maps: int, stride: int):
        super().__init__()
        self.new_maps = new_maps
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        subsampled = x[:, :, :: self.stride, :: self.stride]
        return F.pad(subsampled, (0, 0, 0, 0, 0, self.new_maps))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """With zeros around the maps, and no bias: the batch normalization behind it has one."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def normalization(maps: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(maps, eps=EPSILON, momentum=MOMENTUM)


def two_layers(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """F of Fig. 5, left: 3x3, 3x3."""
    return nn.Sequential(
        convolution(inputs, outputs, 3, stride),
        normalization(outputs),
        nn.ReLU(inplace=True),
        convolution(outputs, outputs, 3),
        normalization(outputs),
    )


def bottleneck(inputs: int, outputs: int, stride: int, stride_at: StrideAt = "1x1") -> nn.Sequential:
    """F of Fig. 5, right: 1x1 to a quarter of the maps, 3x3, 1x1 back to all of them."""
    maps = outputs // EXPANSION
    strides = (stride, 1) if stride_at == "1x1" else (1, stride)
    return nn.Sequential(
        convolution(inputs, maps, 1, strides[0]),
        normalization(maps),
        nn.ReLU(inplace=True),
        convolution(maps, maps, 3, strides[1]),
        normalization(maps),
        nn.ReLU(inplace=True),
        convolution(maps, outputs, 1),
        normalization(outputs),
    )


def shortcut(option: Shortcuts, inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """The shortcut of one block (Sec. 3.3 and "Identity vs. Projection Shortcuts")."""
    if option == "none":
        return None
    if option == "C" or (option == "B" and inputs != outputs):
        return nn.Sequential(convolution(inputs, outputs, 1, stride), normalization(outputs))
    return nn.Identity() if inputs == outputs else PaddedIdentity(outputs - inputs, stride)


def stage(
    residual: Callable[[int, int, int], nn.Module],
    option: Shortcuts,
    blocks: int,
    inputs: int,
    outputs: int,
    stride: int,
) -> nn.Sequential:
    """Blocks on maps of one size; the first takes the stride and the change in the number of maps."""
    return nn.Sequential(
        Block(residual(inputs, outputs, stride), shortcut(option, inputs, outputs, stride)),
        *(Block(residual(outputs, outputs, 1), shortcut(option, outputs, outputs, 1)) for _ in range(blocks - 1)),
    )


class CifarResNet(nn.Module):
    """6n + 2 layers for pictures of 32x32 (Sec. 4.2): a 3x3 convolution, then 2n layers each on maps of
    32x32, 16x16 and 8x8, global average pooling and a fully connected layer.

    Args:
        depth: layers, 6n + 2.
        shortcuts: "A" in all of the paper's residual networks for CIFAR-10, "none" in its plain ones.
        classes: outputs.

    Raises:
        UsageError: no network has this depth or these shortcuts.
    """

    def __init__(self, depth: int, shortcuts: Shortcuts = "A", classes: int = 10):
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise UsageError(f"--depth {depth}: 6n + 2 layers, in the paper {_listed(CIFAR_DEPTHS)}.")
        _check("shortcuts", shortcuts, ("none", "A", "B"))
        n = depth // 6
        first, second, third = CIFAR_MAPS
        self.conv1 = nn.Sequential(convolution(3, first, 3), normalization(first), nn.ReLU(inplace=True))
        self.maps32 = stage(two_layers, shortcuts, n, first, first, stride=1)
        self.maps16 = stage(two_layers, shortcuts, n, first, second, stride=2)
        self.maps8 = stage(two_layers, shortcuts, n, second, third, stride=2)
        self.fc = nn.Linear(third, classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, 32, 32), less the mean of the training pictures, to logits (N, classes); the
        softmax is in the loss."""
        x = self.conv1(x)
        x = self.maps32(x)
        x = self.maps16(x)
        x = self.maps8(x)
        return self.fc(x.mean((2, 3)))


class ImageNetResNet(nn.Module):
    """The networks of Table 1.

    Args:
        depth: layers, one of `IMAGENET_BLOCKS`; from 50 on a block is a bottleneck.
        shortcuts: Table 3; "B" in the paper's networks of 50 layers and more.
        stride_at: which convolution of a bottleneck halves the maps. "3x3" is version 1.5, which takes
            6 % more multiplications at 50 layers.
        classes: outputs.

    Raises:
        UsageError: no network has this depth, these shortcuts or its stride there.
    """

    def __init__(self, depth: int, shortcuts: Shortcuts = "B", stride_at: StrideAt = "1x1", classes: int = 1000):
        super().__init__()
        if depth not in IMAGENET_BLOCKS:
            raise UsageError(f"--depth {depth}: Table 1 has networks of {_listed(IMAGENET_BLOCKS)} layers.")
        _check("shortcuts", shortcuts, ("none", "A", "B", "C"))
        _check("stride_at", stride_at, ("1x1", "3x3") if depth >= BOTTLENECK_FROM else ("1x1",))
        if depth >= BOTTLENECK_FROM:
            residual = partial(bottleneck, stride_at=stride_at)
            m2, m3, m4, m5 = (EXPANSION * maps for maps in IMAGENET_MAPS)
        else:
            residual = two_layers
            m2, m3, m4, m5 = IMAGENET_MAPS
        n2, n3, n4, n5 = IMAGENET_BLOCKS[depth]
        self.conv1 = nn.Sequential(convolution(3, 64, 7, stride=2), normalization(64), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)  # Table 1 has it in conv2_x
        self.conv2_x = stage(residual, shortcuts, n2, 64, m2, stride=1)
        self.conv3_x = stage(residual, shortcuts, n3, m2, m3, stride=2)
        self.conv4_x = stage(residual, shortcuts, n4, m3, m4, stride=2)
        self.conv5_x = stage(residual, shortcuts, n5, m4, m5, stride=2)
        self.fc = nn.Linear(m5, classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, H, W), 224x224 in training, to logits (N, classes).

        The average and the fully connected layer may change places, so a picture of another size gets
        the mean of what the network says at every position: the fully convolutional form in which the
        paper tests at several scales (Sec. 3.4).
        """
        x = self.pool(self.conv1(x))
        x = self.conv2_x(x)
        x = self.conv3_x(x)
        x = self.conv4_x(x)
        x = self.conv5_x(x)
        return self.fc(x.mean((2, 3)))


def _check(field: str, value: str, possible: tuple[str, ...]) -> None:
    if value not in possible:
        raise UsageError(f"--{field.replace('_', '-')} {value}: must be {_listed(possible, ' or ')} in this network.")


def _listed(values: Iterable, last: str = " and ") -> str:
    *others, final = map(str, values)
    return ", ".join(others) + last + final if others else final


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """He's initialization, the paper's reference [13]: N(0, 2 / fan-in) in every layer, biases zero.

    Batch normalization starts as PyTorch makes it, with scale 1 and shift 0.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weight = module.weight
            # Drawn on the CPU and in the shape's own order, whatever the device and the memory order.
            drawn = torch.empty(weight.shape).normal_(0, math.sqrt(2 / weight[0].numel()), generator=generator)
            weight.copy_(drawn)
            if module.bias is not None:
                module.bias.zero_()
