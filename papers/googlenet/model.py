"""GoogLeNet as printed in 2014, row by row as Table 1 has it.

C. Szegedy, W. Liu, Y. Jia, P. Sermanet, S. Reed, D. Anguelov, D. Erhan, V. Vanhoucke, A. Rabinovich, "Going Deeper
with Convolutions", CVPR 2015: Sections 4 and 5.

Poolings round their output sizes up, as in Caffe: of 112 pixels a 3x3/2 max pooling makes 56, and every size of
Table 1 comes out without padding.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.errors import UsageError

SIDE = 224  # pixels (Sec. 5)
SMALLEST_SIDE = 80  # below it the heads' 5x5 average pooling is larger than its 14x14 map has become
LARGEST_SIDE = 512
HEADS_ON = ("4a", "4d")  # Sec. 5
HEAD_DROPOUT = 0.7  # Sec. 5
HEAD_FEATURES, HEAD_UNITS = 128, 1024  # Sec. 5
INITIAL_BIAS = 0.2  # of the BVLC GoogLeNet
EPSILON = 1e-3  # of batch normalization, where there is one: that of the later Inception networks' TensorFlow code

# Local response normalization. The paper shows where it is (Fig. 3) and gives no constants: these are those of the
# BVLC GoogLeNet; all but ALPHA are Caffe's defaults. AlexNet's are the same window and exponent, but 2 in place of BIAS
# and ALPHA times the sum, not the mean, over the window.
WINDOW, ALPHA, BETA, BIAS = 5, 1e-4, 0.75, 1.0


@dataclass(frozen=True)
class Columns:
    """The columns of Table 1 that describe an inception module: filters of each convolution."""

    conv_1x1: int
    reduce_3x3: int
    conv_3x3: int
    reduce_5x5: int
    conv_5x5: int
    pool_proj: int

    @property
    def output(self) -> int:
        """Channels of the concatenated branches."""
        return self.conv_1x1 + self.conv_3x3 + self.conv_5x5 + self.pool_proj


TABLE_1 = {
    "3a": Columns(64, 96, 128, 16, 32, 32),
    "3b": Columns(128, 128, 192, 32, 96, 64),
    "4a": Columns(192, 96, 208, 16, 48, 64),
    "4b": Columns(160, 112, 224, 24, 64, 64),
    "4c": Columns(128, 128, 256, 24, 64, 64),
    "4d": Columns(112, 144, 288, 32, 64, 64),
    "4e": Columns(256, 160, 320, 32, 128, 128),
    "5a": Columns(256, 160, 320, 32, 128, 128),
    "5b": Columns(384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class Network:
    """In what a network that goes by the name differs from the printed one, whose values are the defaults."""

    batch_norm: bool = False  # after every convolution, in place of its bias and of local response normalization
    kernel_5x5: int = 5  # side of the kernels that Table 1 calls 5x5
    pool4: int = 3  # side of the windows of the max pooling after inception (4e)
    head_pool: Callable[[], nn.Module] = lambda: nn.AvgPool2d(5, 3, ceil_mode=True)  # Sec. 5
    dropout: float = 0.4  # Table 1


NETWORKS = {
    "paper": Network(),
    "bn": Network(batch_norm=True),
    "torchvision": Network(True, 3, 2, lambda: nn.AdaptiveAvgPool2d(4), 0.2),
}
NetworkName = Literal["paper", "bn", "torchvision"]


class GoogLeNet(nn.Module):
    """Table 1 and the two auxiliary classifiers of Sec. 5.

    Args:
        classes: outputs.
        network: the printed one, or one of the others of `NETWORKS`.
        heads: with the auxiliary classifiers, which work in training mode only.
        side: of the pictures that train, in pixels: it sets the size of the heads' dense layers. In evaluation mode
            pictures of any size from `SMALLEST_SIDE` go through.

    Raises:
        UsageError: as `check_side`.
    """

    def __init__(self, classes: int, network: NetworkName = "paper", heads: bool = True, side: int = SIDE):
        super().__init__()
        check_side(side)
        kind = NETWORKS[network]
        self.dropout = kind.dropout

        def response_norm() -> nn.Module:
            return nn.Identity() if kind.batch_norm else LocalResponseNorm()

        def inception(name: str, inputs: int) -> Inception:
            return Inception(inputs, TABLE_1[name], kind)

        self.conv1 = Convolution(3, 64, 7, kind, stride=2)
        self.pool1 = max_pool(3)
        self.norm1 = response_norm()
        self.conv2_reduce = Convolution(64, 64, 1, kind)
        self.conv2 = Convolution(64, 192, 3, kind)
        self.norm2 = response_norm()
        self.pool2 = max_pool(3)
        self.inception_3a = inception("3a", 192)
        self.inception_3b = inception("3b", TABLE_1["3a"].output)
        self.pool3 = max_pool(3)
        self.inception_4a = inception("4a", TABLE_1["3b"].output)
        self.inception_4b = inception("4b", TABLE_1["4a"].output)
        self.inception_4c = inception("4c", TABLE_1["4b"].output)
        self.inception_4d = inception("4d", TABLE_1["4c"].output)
        self.inception_4e = inception("4e", TABLE_1["4d"].output)
        self.pool4 = max_pool(kind.pool4)
        self.inception_5a = inception("5a", TABLE_1["4e"].output)
        self.inception_5b = inception("5b", TABLE_1["5a"].output)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)  # Table 1: 7x7/1, the whole map of a picture of 224 pixels
        self.linear = nn.Linear(TABLE_1["5b"].output, classes)
        self.heads = nn.ModuleDict(
            {name: Head(TABLE_1[name].output, classes, kind, side) for name in HEADS_ON} if heads else {}
        )
        self.to(memory_format=torch.channels_last)  # pictures follow the weights

    def forward(self, x: Tensor, draw: torch.Generator | None = None) -> Tensor | tuple[Tensor, ...]:
        """
        Args:
            x: pictures (N, 3, H, W).
            draw: where dropout takes its random numbers from. Used, and needed, in training mode only.

        Returns:
            Logits (N, classes), their softmax is in the loss. In training mode a tuple: these, and those of the heads
            on 4a and 4d, where there are heads.
        """
        x = self.norm1(self.pool1(self.conv1(x)))
        x = self.norm2(self.conv2(self.conv2_reduce(x)))
        x = self.inception_3b(self.inception_3a(self.pool2(x)))
        x = seen_4a = self.inception_4a(self.pool3(x))
        x = seen_4d = self.inception_4d(self.inception_4c(self.inception_4b(x)))
        x = self.inception_5a(self.pool4(self.inception_4e(x)))
        x = self.avg_pool(self.inception_5b(x)).flatten(1)
        if not self.training:
            return self.linear(x)
        seen = dict(zip(HEADS_ON, (seen_4a, seen_4d), strict=True))
        logits = self.linear(dropout(x, self.dropout, draw))
        return logits, *(head(seen[name], draw) for name, head in self.heads.items())


class Convolution(nn.Sequential):
    """A convolution that keeps the picture's size but for its stride, and ReLU: "all the convolutions, including those
    inside the Inception modules, use rectified linear activation" (Sec. 5)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, kind: Network, stride: int = 1):
        convolution = Pointwise if kernel == 1 else nn.Conv2d
        layers = [convolution(inputs, outputs, kernel, stride, kernel // 2, bias=not kind.batch_norm)]
        if kind.batch_norm:
            layers.append(nn.BatchNorm2d(outputs, EPSILON))
        super().__init__(*layers, nn.ReLU(inplace=True))


class Pointwise(nn.Conv2d):
    """A 1x1 convolution. Where it trains in bfloat16 on a CPU it is a product of matrices: PyTorch's gradient of a 1x1
    kernel then takes far longer than in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        if torch.is_autocast_enabled("cpu") and torch.is_grad_enabled():
            return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return super().forward(x)


class Inception(nn.Module):
    """Fig. 2(b): four branches side by side, their outputs concatenated in the order of Table 1's columns."""

    def __init__(self, inputs: int, columns: Columns, kind: Network):
        super().__init__()
        self.conv_1x1 = Convolution(inputs, columns.conv_1x1, 1, kind)
        self.reduce_3x3 = Convolution(inputs, columns.reduce_3x3, 1, kind)
        self.conv_3x3 = Convolution(columns.reduce_3x3, columns.conv_3x3, 3, kind)
        self.reduce_5x5 = Convolution(inputs, columns.reduce_5x5, 1, kind)
        self.conv_5x5 = Convolution(columns.reduce_5x5, columns.conv_5x5, kind.kernel_5x5, kind)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool_proj = Convolution(inputs, columns.pool_proj, 1, kind)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, `Columns.output`, H, W)."""
        branches = (
            self.conv_1x1(x),
            self.conv_3x3(self.reduce_3x3(x)),
            self.conv_5x5(self.reduce_5x5(x)),
            self.pool_proj(self.pool(x)),
        )
        return torch.cat(branches, dim=1)


class Head(nn.Module):
    """An auxiliary classifier: average pooling, 1x1 convolution, two dense layers (Sec. 5).

    Args:
        inputs: channels of the map that it looks at.
        side: of the pictures in pixels; that map's is a sixteenth of it.
    """

    def __init__(self, inputs: int, classes: int, kind: Network, side: int):
        super().__init__()
        self.pool = kind.head_pool()
        self.conv = Convolution(inputs, HEAD_FEATURES, 1, kind)
        map_side = math.ceil(side / 2) // 8  # conv1 rounds up; on whole numbers the three poolings round down
        pooled = self.pool(torch.empty(1, 1, map_side, map_side)).numel()
        self.dense = nn.Linear(HEAD_FEATURES * pooled, HEAD_UNITS)
        self.linear = nn.Linear(HEAD_UNITS, classes)

    def forward(self, x: Tensor, draw: torch.Generator | None = None) -> Tensor:
        """(N, inputs, H, W) to logits (N, classes)."""
        x = self.conv(self.pool(x)).flatten(1)
        x = F.relu(self.dense(x))
        x = dropout(x, HEAD_DROPOUT, draw) if self.training else x
        return self.linear(x)


def check_side(side: int) -> None:
    """
    Raises:
        UsageError: pictures of this side do not go through the poolings, or make the heads needlessly large.
    """
    if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
        raise UsageError(f"--side {side}: from {SMALLEST_SIDE} to {LARGEST_SIDE}.")


def max_pool(window: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(window, stride=2, ceil_mode=True)


def dropout(x: Tensor, share: float, draw: torch.Generator | None) -> Tensor:
    """Zero a share of the values and scale up the others.

    The random numbers come from a generator on the CPU, never from PyTorch's global state.
    """
    if draw is None:
        raise ValueError("in training mode dropout needs a generator")
    kept = torch.rand(x.shape, generator=draw) >= share
    return x * kept.to(x.device) / (1 - share)


# ---- local response normalization -------------------------------------------------------


class LocalResponseNorm(nn.Module):
    """Krizhevsky et al. (2012), Sec. 3.3: x / (BIAS + ALPHA * mean of x^2 over WINDOW neighbouring channels)^BETA.

    Beyond the first and the last channel there are zeros. PyTorch's own takes four times as long, has no bfloat16 on
    a CPU, and no deterministic gradient on a GPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and type."""
        with torch.autocast(x.device.type, enabled=False):
            return _Normalised.apply(x)


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        scale = _sum_over_window(x.square()).mul_(ALPHA / WINDOW).add_(BIAS)
        factor = scale.pow(-BETA)
        ctx.save_for_backward(x, scale, factor)
        return x * factor

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        x, scale, factor = ctx.saved_tensors
        direct = gradient * factor
        through_scale = _sum_over_window(direct * x / scale)
        return direct.addcmul_(x, through_scale, value=-2 * ALPHA * BETA / WINDOW)


def _sum_over_window(x: Tensor) -> Tensor:
    """Of every value and its neighbours in the channels, as a 1x1 convolution with a band of ones."""
    channel = torch.arange(x.shape[1], device=x.device)
    band = (channel[:, None] - channel).abs() <= WINDOW // 2
    return F.conv2d(x, band.to(x.dtype)[:, :, None, None])


# ---- weights ----------------------------------------------------------------------------


Initial = Literal["xavier", "he"]


@torch.no_grad()
def initialise(model: GoogLeNet, draw: torch.Generator, initial: Initial = "he") -> None:
    """Uniform weights; batch normalization, where there is one, changes nothing.

    The paper does not say how its weights began. "xavier" is Caffe's, with which the BVLC GoogLeNet was trained:
    variance 1 / fan-in, and biases of 0.2. "he" is that of He et al. (2015): variance 2 / fan-in, and biases of 0.
    """
    gain, bias = {"xavier": (1, INITIAL_BIAS), "he": (2, 0.0)}[initial]
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Drawn in the shape's own order, whatever the memory format.
            bound = math.sqrt(3 * gain / module.weight[0].numel())
            module.weight.copy_(torch.empty(module.weight.shape).uniform_(-bound, bound, generator=draw))
            if module.bias is not None:
                module.bias.fill_(bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def without_heads(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a test needs: the heads "are discarded" at inference time (Sec. 5)."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith("heads.")}


# How torchvision's names become those of the network "torchvision", in this order.
TORCHVISION_NAMES = (
    (r"^conv2\.", "conv2_reduce."), (r"^conv3\.", "conv2."), (r"^fc\.", "linear."),
    (r"^aux1\.", "heads.4a."), (r"^aux2\.", "heads.4d."), (r"\.fc1\.", ".dense."), (r"\.fc2\.", ".linear."),
    (r"^inception", "inception_"), (r"\.branch1\.", ".conv_1x1."),
    (r"\.branch2\.0\.", ".reduce_3x3."), (r"\.branch2\.1\.", ".conv_3x3."),
    (r"\.branch3\.0\.", ".reduce_5x5."), (r"\.branch3\.1\.", ".conv_5x5."), (r"\.branch4\.1\.", ".pool_proj."),
    (r"\.conv\.weight$", ".0.weight"), (r"\.bn\.", ".1."),
)  # fmt: skip


def from_torchvision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of torchvision's `googlenet` as that of the network "torchvision"."""

    def renamed(name: str) -> str:
        for pattern, ours in TORCHVISION_NAMES:
            name = re.sub(pattern, ours, name)
        return name

    return {renamed(name): tensor for name, tensor in weights.items()}
