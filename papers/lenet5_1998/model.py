"""LeNet-5 as printed in 1998.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to
Document Recognition", Proceedings of the IEEE 86(11), 1998: Section II-B,
Table I, Figures 2 and 3, Appendix A.

The layers carry the paper's names and stand in its order. The trainable
parameters are 60,000 and the connections 340,908, as the paper says.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10
IMAGE_SIDE = 32  # the 28x28 image in the middle of a larger field (Sec. II-B)
BACKGROUND, FOREGROUND = -0.1, 1.175  # values of white and black (Sec. II-B)

# Table I: the S2 maps that feed each map of C3.
C3_SOURCES = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# The 7x12 bitmaps of the ten digits, the centres of the RBF units (Fig. 3). The
# paper shows them as a picture only; these are drawn in its style.
BITMAPS = """
..###.. ...#... .#####. .#####. .....#. ####### ..####. ####### .#####. .#####.
.##.##. ..##... ##...## ##...## ....##. ##..... .##.... ##...## ##...## ##...##
##...## .###... .....## .....## ...###. ##..... ##..... .....## ##...## ##...##
##...## ...#... .....## .....## ..##.#. ##..... ##..... ....##. ##...## ##...##
##...## ...#... ....##. .....## .##..#. ######. ######. ....##. .##.##. ##...##
##...## ...#... ...##.. ..####. ##...#. .....## ##...## ...##.. ..###.. .######
##...## ...#... ..##... .....## ##...#. .....## ##...## ...##.. .##.##. .....##
##...## ...#... .##.... .....## ####### .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... .....## .....#. .....## ##...## ..##... ##...## .....##
.##.##. ...#... ##..... ##...## .....#. ##...## ##...## ..##... ##...## ....##.
..###.. .#####. ####### .#####. .....#. .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""

AMPLITUDE, SLOPE = 1.7159, 2 / 3


def squash(a: Tensor) -> Tensor:
    """f(a) = A tanh(S a), so that f(1) = 1 and f(-1) = -1 (Appendix A). Any shape."""
    return AMPLITUDE * torch.tanh(SLOPE * a)


def rbf_centres() -> Tensor:
    """The ten bitmaps as rows of +1 (black) and -1 (white). Shape (10, 84)."""
    rows = [line.split() for line in BITMAPS.split("\n") if line]
    digits = ["".join(row[digit] for row in rows) for digit in range(CLASSES)]
    return torch.tensor([[1.0 if cell == "#" else -1.0 for cell in digit] for digit in digits])


class Subsampling(nn.Module):
    """S2 and S4: each unit weighs a 2x2 window by one coefficient per map (Sec. II-B).

    Section II-B adds the four inputs, Section II-A averages them; `mean` takes
    the second reading.
    """

    def __init__(self, maps: int, mean: bool):
        super().__init__()
        self.coefficient = nn.Parameter(torch.ones(maps))
        self.bias = nn.Parameter(torch.zeros(maps))
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        """(N, maps, H, W) to (N, maps, H/2, W/2)."""
        window = F.avg_pool2d(x, 2) if self.mean else 4 * F.avg_pool2d(x, 2)
        return self.coefficient[:, None, None] * window + self.bias[:, None, None]


class PartialConvolution(nn.Module):
    """C3: a 5x5 convolution whose maps see only some of the maps below (Table I).

    Holds the 60 kernels that exist, map by map and within a map by rising
    source; the others are zeros that no parameter stands for.
    """

    def __init__(self, sources: tuple[tuple[int, ...], ...] = C3_SOURCES):
        super().__init__()
        pairs = [(target, source) for target, row in enumerate(sources) for source in sorted(row)]
        self.targets, self.sources = (list(column) for column in zip(*pairs, strict=True))
        self.shape = (len(sources), 1 + max(self.sources), 5, 5)
        self.weight = nn.Parameter(torch.zeros(len(pairs), 5, 5))
        self.bias = nn.Parameter(torch.zeros(len(sources)))

    def masked_weight(self) -> Tensor:
        """All kernels, the absent ones zero. Shape (16, 6, 5, 5)."""
        return self.weight.new_zeros(self.shape).index_put(
            (torch.tensor(self.targets), torch.tensor(self.sources)), self.weight
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6, H, W) to (N, 16, H-4, W-4)."""
        return F.conv2d(x, self.masked_weight(), self.bias)


class EuclideanRBF(nn.Module):
    """The output layer: squared distances to fixed centres (eq. 7)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centres", rbf_centres(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 84) to penalties y of shape (N, 10): the smaller, the likelier the class."""
        return (x[:, None, :] - self.centres).square().sum(dim=2)


class LeNet5(nn.Module):
    """The network of Figure 2; by default that of the variant `lenet5`, whose weights are published.

    Args:
        subsample_mean: S2 and S4 average their four inputs; `False` adds them.
        squash_convolutions: squash after C1, C3 and C5, as the paper does in every
            layer up to F6. `False` is the blog's network.
    """

    def __init__(self, subsample_mean: bool = True, squash_convolutions: bool = True):
        super().__init__()
        self.C1 = nn.Conv2d(1, 6, 5)
        self.S2 = Subsampling(6, subsample_mean)
        self.C3 = PartialConvolution()
        self.S4 = Subsampling(16, subsample_mean)
        self.C5 = nn.Conv2d(16, 120, 5)
        self.F6 = nn.Linear(120, 84)
        self.output = EuclideanRBF()
        self.squash_convolutions = squash_convolutions

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 32, 32), background -0.1 and foreground 1.175, to penalties (N, 10)."""
        squash_convolution = squash if self.squash_convolutions else nn.Identity()
        x = squash_convolution(self.C1(x))  # 6 @ 28x28
        x = squash(self.S2(x))  # 6 @ 14x14
        x = squash_convolution(self.C3(x))  # 16 @ 10x10
        x = squash(self.S4(x))  # 16 @ 5x5
        x = squash_convolution(self.C5(x))  # 120 @ 1x1
        x = squash(self.F6(x.flatten(1)))  # 84
        return self.output(x)


def fan_in(model: LeNet5) -> dict[str, Tensor]:
    """The number of inputs of the unit that each parameter belongs to.

    One tensor per parameter, of the parameter's shape or broadcastable to it. The
    maps of C3 have three, four or six 5x5 inputs, so theirs differ.
    """
    inputs = torch.bincount(torch.tensor(model.C3.targets)) * 25.0
    return {
        "C1.weight": torch.tensor(25.0),
        "C1.bias": torch.tensor(25.0),
        "S2.coefficient": torch.tensor(4.0),
        "S2.bias": torch.tensor(4.0),
        "C3.weight": inputs[model.C3.targets][:, None, None],
        "C3.bias": inputs,
        "S4.coefficient": torch.tensor(4.0),
        "S4.bias": torch.tensor(4.0),
        "C5.weight": torch.tensor(400.0),
        "C5.bias": torch.tensor(400.0),
        "F6.weight": torch.tensor(120.0),
        "F6.bias": torch.tensor(120.0),
    }


@torch.no_grad()
def initialise(model: LeNet5, bound: float, fan_in_exponent: float, generator: torch.Generator) -> None:
    """Draw every parameter from U(-b/F^e, b/F^e), F its unit's fan-in.

    Appendix A prints b = 2.4 and e = 1.
    """
    fans = fan_in(model)
    for name, parameter in model.named_parameters():
        uniform = torch.rand(parameter.shape, generator=generator) * 2 - 1
        parameter.copy_(uniform * bound / fans[name] ** fan_in_exponent)


def maximum_likelihood(y: Tensor, label: Tensor) -> Tensor:
    """Eq. 8, the penalty of the right class, averaged. `y` (N, 10), `label` (N,)."""
    return y.gather(1, label[:, None]).mean()


def maximum_a_posteriori(y: Tensor, label: Tensor, j: float) -> Tensor:
    """Eq. 9: eq. 8 and a term that pushes the wrong classes' penalties up, averaged.

    e^-j stands for the rubbish class; `j` keeps penalties that are already large
    from growing further.
    """
    rubbish = y.new_full((len(y), 1), j)
    competition = torch.logsumexp(torch.cat([-y, -rubbish], dim=1), dim=1)
    return maximum_likelihood(y, label) + competition.mean()


@dataclass(frozen=True)
class Loss:
    """Eq. 8 ("eq8") or eq. 9 ("eq9") with its constant j."""

    equation: str
    j: float

    def __call__(self, y: Tensor, label: Tensor) -> Tensor:
        """Penalties (N, 10) and labels (N,) to a scalar."""
        return maximum_likelihood(y, label) if self.equation == "eq8" else maximum_a_posteriori(y, label, self.j)


def layer_counts(model: LeNet5) -> dict[str, tuple[int, int]]:
    """Trainable parameters and connections of every layer, as Section II-B counts them.

    Every position of a convolution uses each of its weights and biases once; a
    subsampling unit has four inputs and a bias.
    """
    counts = {}

    def count(name: str, layer: nn.Module, output: Tensor) -> None:
        parameters = sum(p.numel() for p in layer.parameters())
        positions = output[0, 0].numel()
        if isinstance(layer, Subsampling):
            connections = output[0].numel() * (4 + 1)
        elif isinstance(layer, EuclideanRBF):
            connections = layer.centres.numel()
        else:
            connections = positions * parameters
        counts[name] = (parameters, connections)

    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: count(name, layer, output))
        for name, layer in model.named_children()
    ]
    model(torch.zeros(1, 1, IMAGE_SIDE, IMAGE_SIDE))
    for hook in hooks:
        hook.remove()
    return counts
