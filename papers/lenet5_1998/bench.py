"""LeNet-5: an update with one pattern, and evaluation, against the way tutorials do it."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from common.publishing.bench import Job
from common.publishing.growth import Growth, seconds_of_command
from common.training.determinism import generator
from papers.lenet5_1998 import kernel
from papers.lenet5_1998.model import C3_SOURCES, LeNet5, initialise, rbf_centres, squash
from papers.lenet5_1998.train import VARIANTS, build_model

PATTERNS = 2000
SLOW_UPDATES = 30
# Multiplications and additions: two for each of the 340,908 connections in the forward pass, and
# twice that in the backward pass, except that C1 needs no gradient of its input.
FLOPS_FORWARD = 2 * 340_908
FLOPS_UPDATE = 3 * FLOPS_FORWARD - 2 * 122_304


class Straightforward(nn.Module):
    """Sixteen small convolutions, and a loop over the channels wherever the paper says 'per map'."""

    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.c3 = nn.ModuleList([nn.Conv2d(len(sources), 1, 5) for sources in C3_SOURCES])
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.coefficients = nn.ParameterList([nn.Parameter(torch.ones(maps)) for maps in (6, 16)])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(maps)) for maps in (6, 16)])
        self.register_buffer("centres", rbf_centres())

    def subsample(self, x: Tensor, layer: int) -> Tensor:
        pooled = nn.functional.avg_pool2d(x, 2)
        maps = []
        for channel in range(x.shape[1]):
            maps.append(self.coefficients[layer][channel] * pooled[:, channel] + self.biases[layer][channel])
        return torch.stack(maps, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        x = squash(self.subsample(squash(self.c1(x)), 0))
        x = squash(
            torch.cat([conv(x[:, list(sources)]) for conv, sources in zip(self.c3, C3_SOURCES, strict=True)], dim=1)
        )
        x = squash(self.c5(squash(self.subsample(x, 1))))
        x = squash(self.f6(x.flatten(1)))
        return torch.stack([((x - centre) ** 2).sum(dim=1) for centre in self.centres], dim=1)


def jobs() -> list[Job]:
    draw = generator(0, "benchmark")
    patterns = torch.rand(PATTERNS, 32, 32, generator=draw) * 1.275 - 0.1
    labels = torch.randint(10, (PATTERNS,), generator=draw)
    return [*_updates(patterns, labels), _evaluation(patterns)]


def growth() -> list[Growth]:
    return [Growth("LeNet-5: `--preset smoke`", "seeds", (1, 2, 3, 4, 5), _seconds_of_seeds)]


def _seconds_of_seeds(count: int) -> float:
    seeds = ",".join(str(seed) for seed in range(count))
    return seconds_of_command("lenet5_1998", "--preset", "smoke", "--seeds", seeds)


def _updates(patterns: Tensor, labels: Tensor) -> list[Job]:
    """Empty where there is no compiler: then there is nothing faster to time."""
    recipe = VARIANTS["lenet5"]
    model = build_model(recipe)
    initialise(model, recipe.bound, recipe.fan_in_exponent, generator(0, "benchmark weights"))
    weights = parameters_to_vector(model.parameters()).detach().clone()
    fast = kernel.build(model, recipe.loss, recipe.curvature)
    if fast is None:
        return []
    rates = torch.full_like(weights, 1e-5)
    order = torch.arange(PATTERNS)

    slow = Straightforward()
    optimiser = torch.optim.SGD(slow.parameters(), lr=1e-5)
    slow_patterns = [pattern[None, None] for pattern in patterns[:SLOW_UPDATES]]

    def ours() -> int:
        fast.updates(weights, rates, patterns, labels, order)
        return PATTERNS

    def straightforward() -> int:
        torch.set_num_threads(1)
        for pattern, label in zip(slow_patterns, labels, strict=False):
            optimiser.zero_grad()
            y = slow(pattern)
            (y[0, label] + torch.logsumexp(-y[0], dim=0)).backward()
            optimiser.step()
        return SLOW_UPDATES

    return [Job("one-pattern update", ours, straightforward, FLOPS_UPDATE, 1, "20 passes", 20 * 60_000)]


def _evaluation(patterns: Tensor) -> Job:
    model, slow = LeNet5(), Straightforward()

    @torch.no_grad()
    def ours() -> int:
        model(patterns[:, None]).argmin(dim=1)
        return PATTERNS

    @torch.no_grad()
    def straightforward() -> int:
        slow(patterns[:, None]).argmin(dim=1)
        return PATTERNS

    return Job("evaluation", ours, straightforward, FLOPS_FORWARD, 1, "10,000 test patterns", 10_000)
