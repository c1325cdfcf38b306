"""Squeeze-and-excitation blocks, and residual networks with and without them.

J. Hu, L. Shen, S. Albanie, G. Sun, E. Wu, "Squeeze-and-Excitation Networks", CVPR 2018 and
IEEE TPAMI 42(8), 2020: Section 3 has the block, Table 1 the networks for ImageNet, Section 5.1
and Table 4 those for CIFAR-10.

The block stands at the end of a residual branch, before the addition (Fig. 3). A network with
`reduction=None` has none and is otherwise the same, layer for layer and name for name.

Weights are kept channels-last, the memory order in which convolutions are fastest; so are the
feature maps, whatever the order of the pictures.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.errors import UsageError

REDUCTION = 16  # Sec. 5.1; chosen in Sec. 6.1, Table 10
CIFAR_MAPS = (16, 32, 64)  # on maps of 32x32, 16x16 and 8x8
IMAGENET_MAPS = (256, 512, 1024, 2048)  # Table 1
IMAGENET_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
RESNEXT_DEPTHS = (50, 101)  # Table 2
CARDINALITY = 32  # groups of ResNeXt 32x4d

# Of batch normalization the paper gives neither. These are PyTorch's and those of fb.resnet.torch; with
# them the plain network is trained as in the folder of the ResNet paper.
EPSILON = 1e-5
MOMENTUM = 0.1  # the share of the newest batch in the moments that a test uses


# ---- the block --------------------------------------------------------------------------


class SqueezeExcitation(nn.Module):
    """Weigh each feature map by a gate between 0 and 1 that sees all of them (Sec. 3, Fig. 1).

    Args:
        maps: C, the number of feature maps.
        reduction: r; the bottleneck of the gate has C / r units.
        bias: of the two fully connected layers. Eqn. 3 has none; the authors' released networks have. Sec. 6 removes
            them, so the networks of Sec. 5 may have had them.

    Raises:
        UsageError: C is not a multiple of r.
    """

    def __init__(self, maps: int, reduction: int, bias: bool = False):
        super().__init__()
        if reduction < 1 or maps % reduction:
            raise UsageError(f"--reduction {reduction}: must divide {maps}, the feature maps of the narrowest block.")
        self.w1 = nn.Linear(maps, maps // reduction, bias=bias)
        self.w2 = nn.Linear(maps // reduction, maps, bias=bias)

    def gate(self, u: Tensor) -> Tensor:
        """Feature maps (N, C, H, W) to s (N, C): squeeze (Eqn. 2), then excitation (Eqn. 3)."""
        z = u.mean((2, 3))
        return torch.sigmoid(self.w2(F.relu(self.w1(z))))

    def forward(self, u: Tensor) -> Tensor:
        """Feature maps (N, C, H, W), scaled (Eqn. 4)."""
        return u * self.gate(u)[:, :, None, None]


Excite = Callable[[int], SqueezeExcitation | None]


def excitation(maps: int, reduction: int | None, bias: bool) -> SqueezeExcitation | None:
    return None if reduction is None else SqueezeExcitation(maps, reduction, bias)


# ---- what the networks are made of -------------------------------------------------------


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """With zeros around the maps, and no bias: a batch normalization near it has one."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def normalization(maps: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(maps, eps=EPSILON, momentum=MOMENTUM)


def activation(maps: int) -> nn.Sequential:
    return nn.Sequential(normalization(maps), nn.ReLU(inplace=True))


def stage(block: Callable[[int, int, int], nn.Module], blocks: int, inputs: int, outputs: int, stride: int):
    """Blocks on maps of one size; the first takes the stride and the change in the number of maps."""
    return nn.Sequential(block(inputs, outputs, stride), *(block(outputs, outputs, 1) for _ in range(blocks - 1)))


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + excitation(residual(x))), the SE-ResNet module of Fig. 3.

    Args:
        residual: the branch, up to the batch normalization after its last convolution.
        excitation: None in the plain network.
    """

    def __init__(self, residual: nn.Module, excitation: nn.Module | None, shortcut: nn.Module):
        super().__init__()
        self.residual = residual
        self.excitation = excitation
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        u = self.residual(x)
        if self.excitation is not None:
            u = self.excitation(u)
        return F.relu(u + self.shortcut(x), inplace=True)


class PreActivationUnit(nn.Module):
    """x + excitation(residual(relu(bn(x)))), from the paper's reference [14].

    Args:
        residual: what follows the first activation.
        excitation: None in the plain network.
        shortcut: where there is one, it starts from the activated x.
    """

    def __init__(self, maps: int, residual: nn.Module, excitation: nn.Module | None, shortcut: nn.Module | None):
        super().__init__()
        self.activation = activation(maps)
        self.residual = residual
        self.excitation = excitation
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(x)
        u = self.residual(activated)
        if self.excitation is not None:
            u = self.excitation(u)
        return u + (x if self.shortcut is None else self.shortcut(activated))


class ZeroPadding(nn.Module):
    """A shortcut without parameters: x at every `stride`-th pixel, and zeros for the maps it does not have."""

    def __init__(self, new_maps: int, stride: int):
        super().__init__()
        self.new_maps = new_maps
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_maps))


# ---- CIFAR-10 and CIFAR-100 ---------------------------------------------------------------


def two_layer_block(inputs: int, outputs: int, stride: int, excite: Excite) -> ResidualBlock:
    """3x3, 3x3, with a shortcut that has no parameters."""
    residual = nn.Sequential(
        convolution(inputs, outputs, 3, stride),
        normalization(outputs),
        nn.ReLU(inplace=True),
        convolution(outputs, outputs, 3),
        normalization(outputs),
    )
    shortcut = nn.Identity() if inputs == outputs else ZeroPadding(outputs - inputs, stride)
    return ResidualBlock(residual, excite(outputs), shortcut)


class CifarResNet(nn.Module):
    """The ResNet paper's network of 6n + 2 layers for pictures of 32x32, with a block at each branch.

    It isn't in Table 4; it is the pair, with and without blocks, that is cheap to train.

    Args:
        depth: layers, 6n + 2.
        reduction: r, or None for the plain network.
        bias: of the blocks' fully connected layers.
        classes: outputs.

    Raises:
        UsageError: no network has this depth, or r does not divide 16.
    """

    def __init__(self, depth: int, reduction: int | None = REDUCTION, bias: bool = False, classes: int = 10):
        super().__init__()
        n = _blocks_per_stage(depth, layers=2)
        block = partial(two_layer_block, excite=partial(excitation, reduction=reduction, bias=bias))
        first, second, third = CIFAR_MAPS
        self.conv1 = nn.Sequential(convolution(3, first, 3), normalization(first), nn.ReLU(inplace=True))
        self.maps32 = stage(block, n, first, first, stride=1)
        self.maps16 = stage(block, n, first, second, stride=2)
        self.maps8 = stage(block, n, second, third, stride=2)
        self.fc = nn.Linear(third, classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, 32, 32) to logits (N, classes); the softmax is in the loss."""
        x = self.conv1(x)
        x = self.maps32(x)
        x = self.maps16(x)
        x = self.maps8(x)
        return self.fc(x.mean((2, 3)))


def preactivation_residual(inputs: int, outputs: int, stride: int, bottleneck: bool) -> nn.Sequential:
    """3x3, 3x3 or 1x1, 3x3, 1x1, with activations between; that before the first is the unit's."""
    if not bottleneck:
        return nn.Sequential(
            convolution(inputs, outputs, 3, stride), activation(outputs), convolution(outputs, outputs, 3)
        )
    maps = outputs // 4
    return nn.Sequential(
        convolution(inputs, maps, 1, stride),
        activation(maps),
        convolution(maps, maps, 3),
        activation(maps),
        convolution(maps, outputs, 1),
    )


def preactivation_unit(
    inputs: int, outputs: int, stride: int, excite: Excite, bottleneck: bool, first: bool = False
) -> PreActivationUnit:
    """
    Args:
        first: of the network; its shortcut starts from the activated maps ([14], Appendix).
    """
    shortcut = None
    if inputs != outputs:  # a bare projection of the activated maps, as in the code published with [14]
        shortcut = convolution(inputs, outputs, 1, stride)
    elif first:
        shortcut = nn.Identity()
    return PreActivationUnit(
        inputs, preactivation_residual(inputs, outputs, stride, bottleneck), excite(outputs), shortcut
    )


class CifarPreActivationResNet(nn.Module):
    """ResNet-110 and ResNet-164 of Table 4: pre-activation networks, for they are those of its reference
    [14], K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016.

    Args:
        depth: layers: 6n + 2, or 9n + 2 with bottlenecks.
        bottleneck: False in ResNet-110, True in ResNet-164.
        reduction: r, or None for the plain network.
        bias: of the blocks' fully connected layers.
        classes: outputs.

    Raises:
        UsageError: no network has this depth, or r does not divide the feature maps.
    """

    def __init__(
        self, depth: int, bottleneck: bool, reduction: int | None = REDUCTION, bias: bool = False, classes: int = 10
    ):
        super().__init__()
        n = _blocks_per_stage(depth, layers=3 if bottleneck else 2)
        excite = partial(excitation, reduction=reduction, bias=bias)
        unit = partial(preactivation_unit, excite=excite, bottleneck=bottleneck)
        stem = CIFAR_MAPS[0]
        first, second, third = (4 * maps if bottleneck else maps for maps in CIFAR_MAPS)
        self.conv1 = convolution(3, stem, 3)
        self.maps32 = nn.Sequential(unit(stem, first, 1, first=True), *(unit(first, first, 1) for _ in range(n - 1)))
        self.maps16 = stage(unit, n, first, second, stride=2)
        self.maps8 = stage(unit, n, second, third, stride=2)
        self.activation = activation(third)
        self.fc = nn.Linear(third, classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, 32, 32) to logits (N, classes); the softmax is in the loss."""
        x = self.conv1(x)
        x = self.maps32(x)
        x = self.maps16(x)
        x = self.maps8(x)
        return self.fc(self.activation(x).mean((2, 3)))


def _blocks_per_stage(depth: int, layers: int) -> int:
    """Blocks of that many layers in each of three stages, beside the first and the last layer."""
    if depth < 3 * layers + 2 or (depth - 2) % (3 * layers):
        kind = "bottlenecks" if layers == 3 else "blocks of two layers"
        raise UsageError(f"--depth {depth}: {3 * layers}n + 2 layers with {kind}, such as 20, 110 and 164.")
    return (depth - 2) // (3 * layers)


# ---- ImageNet -----------------------------------------------------------------------------


def bottleneck_block(inputs: int, outputs: int, stride: int, excite: Excite, cardinality: int) -> ResidualBlock:
    """1x1, 3x3, 1x1, with a projection where the maps change in number (Table 1).

    ResNet narrows to a quarter of the maps and has its stride in the first 1x1; ResNeXt 32x4d narrows to
    half of them, in 32 groups, and has it in the 3x3. Both take the multiplications of Table 2 this way.
    """
    maps, strides = (outputs // 4, (stride, 1)) if cardinality == 1 else (outputs // 2, (1, stride))
    residual = nn.Sequential(
        convolution(inputs, maps, 1, strides[0]),
        normalization(maps),
        nn.ReLU(inplace=True),
        convolution(maps, maps, 3, strides[1], groups=cardinality),
        normalization(maps),
        nn.ReLU(inplace=True),
        convolution(maps, outputs, 1),
        normalization(outputs),
    )
    shortcut = nn.Identity()
    if inputs != outputs:
        shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), normalization(outputs))
    return ResidualBlock(residual, excite(outputs), shortcut)


class ImageNetResNet(nn.Module):
    """SE-ResNet-50, -101 and -152, SE-ResNeXt-50 and -101 (32x4d), and the networks they come from (Tables 1 and 2).

    Args:
        depth: layers.
        reduction: r, or None for the plain network.
        cardinality: 1 for ResNet, 32 for ResNeXt.
        bias: of the blocks' fully connected layers.
        caffe_pool: pool without padding, and round the maps' size up, as in the networks that the authors released. Of
            112 pixels both ways make 56, from windows that lie a pixel apart.
        classes: outputs.

    Raises:
        UsageError: no network has this depth or cardinality, or r does not divide 256.
    """

    def __init__(
        self,
        depth: int,
        reduction: int | None = REDUCTION,
        cardinality: Literal[1, 32] = 1,
        bias: bool = False,
        caffe_pool: bool = False,
        classes: int = 1000,
    ):
        super().__init__()
        possible = RESNEXT_DEPTHS if cardinality == CARDINALITY else IMAGENET_BLOCKS
        if depth not in possible:
            raise UsageError(f"--depth {depth}: the paper has networks of {_listed(possible, ' and ')} layers.")
        if cardinality not in (1, CARDINALITY):
            raise UsageError(f"--cardinality {cardinality}: 1 for ResNet, {CARDINALITY} for ResNeXt.")
        excite = partial(excitation, reduction=reduction, bias=bias)
        block = partial(bottleneck_block, excite=excite, cardinality=cardinality)
        m2, m3, m4, m5 = IMAGENET_MAPS
        n2, n3, n4, n5 = IMAGENET_BLOCKS[depth]
        self.conv1 = nn.Sequential(convolution(3, 64, 7, stride=2), normalization(64), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, stride=2, padding=0 if caffe_pool else 1, ceil_mode=caffe_pool)
        self.conv2_x = stage(block, n2, 64, m2, stride=1)
        self.conv3_x = stage(block, n3, m2, m3, stride=2)
        self.conv4_x = stage(block, n4, m3, m4, stride=2)
        self.conv5_x = stage(block, n5, m4, m5, stride=2)
        self.fc = nn.Linear(m5, classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, H, W), 224x224 in the paper, to logits (N, classes)."""
        x = self.pool(self.conv1(x))
        x = self.conv2_x(x)
        x = self.conv3_x(x)
        x = self.conv4_x(x)
        x = self.conv5_x(x)
        return self.fc(x.mean((2, 3)))


# ---- all networks, and initial weights -----------------------------------------------------------


NETWORKS: dict[str, Callable[..., nn.Module]] = {  # as recipes name them
    "cifar": CifarResNet,
    "cifar-preactivation": partial(CifarPreActivationResNet, bottleneck=False),
    "cifar-preactivation-bottleneck": partial(CifarPreActivationResNet, bottleneck=True),
    "imagenet": ImageNetResNet,
    "imagenet-resnext": partial(ImageNetResNet, cardinality=CARDINALITY),
}


def _listed(values: Iterable, last: str) -> str:
    *others, final = map(str, values)
    return ", ".join(others) + last + final


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """He's initialization (Sec. 5.1): N(0, 2 / fan-in) in every layer, biases zero.

    The blocks draw after all other layers, so that from one seed a network starts with the same weights
    with them and without. Batch normalization starts as PyTorch makes it, with scale 1 and shift 0.
    """
    in_blocks = {
        layer for block in model.modules() if isinstance(block, SqueezeExcitation) for layer in block.children()
    }
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for layer in sorted(layers, key=in_blocks.__contains__):
        # Drawn on the CPU and in the shape's own order, whatever the device and the memory order.
        drawn = torch.empty(layer.weight.shape)
        layer.weight.copy_(drawn.normal_(0, math.sqrt(2 / drawn[0].numel()), generator=generator))
        if layer.bias is not None:
            layer.bias.zero_()
