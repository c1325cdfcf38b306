"""Stochastic diagonal Levenberg-Marquardt (Appendix C), in plain PyTorch.

The reference: kernel.c computes the same, faster, and a test checks that
the two agree. Where no C compiler is available, this is what trains.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from papers.lenet5_1998.model import (
    AMPLITUDE,
    SLOPE,
    LeNet5,
    Loss,
    Subsampling,
    squash,
)


@dataclass(frozen=True)
class Curvature:
    """What Appendix C leaves open about the second derivatives.

    Attributes:
        shared_coefficient: a subsampling coefficient is shared by four connections
            to each unit, as in the paper's count of 5,880 and 2,000
            connections; otherwise it multiplies one input, the window.
        top: where they start from under eq. 9: "exact", or "quadratic", those of the
            right class's penalty alone. The exact ones vanish once a pattern is learned.
    """

    shared_coefficient: bool
    top: str


def step_sizes(eta: float, mu: float, curvature: Tensor) -> Tensor:
    """eps_k = eta / (mu + h_kk), for each parameter (eq. 22)."""
    return eta / (mu + curvature)


def update(model: LeNet5, rates: Tensor, pattern: Tensor, label: Tensor, loss: Loss) -> tuple[float, bool]:
    """One pattern, one update: w_k <- w_k - eps_k dE/dw_k.

    Args:
        rates: eps of all 60,000 parameters.
        pattern: (32, 32). label: scalar.

    Returns:
        The right class's penalty and whether another class's was smaller, before the update.
    """
    y = model(pattern[None, None])
    gradient = torch.autograd.grad(loss(y, label[None]), list(model.parameters()))
    with torch.no_grad():
        weights = parameters_to_vector(model.parameters())
        vector_to_parameters(weights - rates * parameters_to_vector(gradient), model.parameters())
    return y[0, label].item(), bool(y[0].argmin() != label)


def top_curvature(x6: Tensor, y: Tensor, centres: Tensor, loss: Loss, top: str) -> Tensor:
    """d2E/dx2 of every output of F6. Shape (N, 84).

    Eq. 8 gives 2, and so does the "quadratic" top. Exactly, with p_i = e^-y_i / (e^-j + sum e^-y), eq. 9 gives
    2 (1 - sum p_i) plus the variance under p of the slopes 2 (x - w_i), which
    is never negative.
    """
    if loss.equation == "eq8" or top == "quadratic":
        return torch.full_like(x6, 2.0)
    rubbish = y.new_full((len(y), 1), -loss.j)
    p = torch.softmax(torch.cat([-y, rubbish], dim=1), dim=1)[:, :-1]
    slopes = 2 * (x6[:, None, :] - centres)
    mean = torch.einsum("nc,ncu->nu", p, slopes)
    square = torch.einsum("nc,ncu->nu", p, slopes.square())
    return 2 * (1 - p.sum(dim=1, keepdim=True)) + (square - mean.square())


@torch.no_grad()
def second_derivatives(model: LeNet5, patterns: Tensor, loss: Loss, curvature: Curvature) -> Tensor:
    """h_kk of all 60,000 parameters: the mean over `patterns` (N, 32, 32) of the diagonal
    second derivatives, propagated back as in Appendix C.

    They go back as the gradient does, with every factor squared: the weights,
    the inputs, and the slopes of the squashing function. Terms with its second
    derivative are left out (Gauss-Newton), and so are products between different
    connections that share a weight.

    """

    def squash_all(layer: nn.Module, a: Tensor) -> tuple[Tensor, Tensor]:
        linear = isinstance(layer, nn.Conv2d | type(model.C3)) and not model.squash_convolutions
        x = a if linear else squash(a)
        return x, torch.ones_like(a) if linear else (SLOPE / AMPLITUDE * (AMPLITUDE**2 - x.square())).square()

    x0 = patterns[:, None]
    x1, slope1 = squash_all(model.C1, model.C1(x0))
    x2, slope2 = squash_all(model.S2, model.S2(x1))
    x3, slope3 = squash_all(model.C3, model.C3(x2))
    x4, slope4 = squash_all(model.S4, model.S4(x3))
    x5, slope5 = squash_all(model.C5, model.C5(x4))
    x6, slope6 = squash_all(model.F6, model.F6(x5.flatten(1)))

    h: dict[str, Tensor] = {}
    d6 = top_curvature(x6, model.output(x6), model.output.centres, loss, curvature.top) * slope6
    h["F6.weight"] = d6.T @ x5.flatten(1).square()
    h["F6.bias"] = d6.sum(0)
    d5 = (d6 @ model.F6.weight.square())[..., None, None] * slope5
    d4 = _convolution(h, "C5", x4, model.C5.weight, d5) * slope4
    d3 = _subsampling(h, "S4", model.S4, x3, d4, curvature.shared_coefficient) * slope3
    d2 = _convolution(h, "C3", x2, model.C3.masked_weight(), d3) * slope2
    h["C3.weight"] = h["C3.weight"][model.C3.targets, model.C3.sources]
    d1 = _subsampling(h, "S2", model.S2, x1, d2, curvature.shared_coefficient) * slope1
    _convolution(h, "C1", x0, model.C1.weight, d1)
    return parameters_to_vector(h[name] for name, _ in model.named_parameters()) / len(patterns)


def _convolution(h: dict[str, Tensor], name: str, x: Tensor, weight: Tensor, d: Tensor) -> Tensor:
    """Fill in h for a convolution with input x and second derivatives d at its sums;
    returns those at x."""
    h[f"{name}.weight"] = conv2d_weight(x.square(), weight.shape, d)
    h[f"{name}.bias"] = d.sum((0, 2, 3))
    return conv2d_input(x.shape, weight.square(), d)


def _subsampling(h: dict[str, Tensor], name: str, layer: Subsampling, x: Tensor, d: Tensor, shared: bool) -> Tensor:
    """The same for a subsampling layer."""
    share = 1 / 16 if layer.mean else 1.0
    squares = 4 * F.avg_pool2d(x.square(), 2) if shared else (4 * F.avg_pool2d(x, 2)).square()
    h[f"{name}.coefficient"] = share * (squares * d).sum((0, 2, 3))
    h[f"{name}.bias"] = d.sum((0, 2, 3))
    spread = d.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return share * layer.coefficient.square()[:, None, None] * spread
