"""HybridSN on a scene of Indian Pines' size: a training step, and classifying pixels, against stored
patches, float32 and PyTorch's own memory format, as in tutorials."""

import numpy as np
import torch
from torch import Tensor, nn

from common.publishing.bench import Job
from common.training.determinism import generator
from common.training.device import fast_precision
from common.training.winograd import use_winograd
from papers.hybridsn.data import Windows
from papers.hybridsn.model import HybridSN, initialise
from papers.hybridsn.scoring import predict
from papers.hybridsn.train import Recipe, gradients

RECIPE = Recipe()
ROWS, COLUMNS, CLASSES = 145, 145, 16
PATCHES = 512  # stored, and classified in one go
THREADS = 2


def products(window: int, bands: int) -> list[int]:
    """Multiplications of each layer for one window, in Table I's order."""
    side, depth, inputs, counts = window, bands, 1, []
    for filters, spectral in ((8, 7), (16, 5), (32, 3)):
        side, depth = side - 2, depth - spectral + 1
        counts.append(side * side * depth * filters * inputs * 9 * spectral)
        inputs = filters
    side -= 2
    counts.append(side * side * 64 * inputs * depth * 9)
    return [*counts, side * side * 64 * 256, 256 * 128, 128 * CLASSES]


PRODUCTS = products(RECIPE.window, RECIPE.components)
FLOPS_FORWARD = 2 * sum(PRODUCTS)
FLOPS_STEP = 3 * FLOPS_FORWARD - 2 * PRODUCTS[0]  # the first layer needs no gradient of its input


class Straightforward(nn.Module):
    """The same network with the spectrum as the first axis and no memory format set."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv3d(1, 8, (7, 3, 3)), nn.ReLU(), nn.Conv3d(8, 16, (5, 3, 3)), nn.ReLU(),
            nn.Conv3d(16, 32, (3, 3, 3)), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Conv2d(576, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18_496, 256), nn.ReLU(), nn.Dropout(0.4),
            nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.4), nn.Linear(128, CLASSES),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolutions(x)
        return self.head(x.reshape(len(x), -1, *x.shape[3:]))


def jobs() -> list[Job]:
    bands = torch.randn(ROWS, COLUMNS, RECIPE.components, generator=generator(0, "benchmark")).numpy()
    windows = Windows(bands, RECIPE.window, "cpu")
    pixels = torch.randperm(ROWS * COLUMNS, generator=generator(0, "benchmark pixels"))[:PATCHES]
    labels = torch.randint(CLASSES, (PATCHES,), generator=generator(0, "benchmark labels"))
    stored = windows.around(pixels).permute(0, 1, 4, 2, 3).contiguous()
    return [_step(windows, pixels, labels, stored), _classification(windows, pixels.numpy(), stored)]


def _step(windows: Windows, pixels: Tensor, labels: Tensor, stored: Tensor) -> Job:
    """An update with one batch."""
    model, slow = _model(), Straightforward()
    optimisers = [torch.optim.Adam(network.parameters(), lr=RECIPE.learning_rate) for network in (model, slow)]
    precision = fast_precision("cpu")
    use_winograd(model, precision)
    pixels, labels, stored = (x[: RECIPE.batch_size] for x in (pixels, labels, stored))

    def ours() -> int:
        model.train()
        gradients(model, windows, pixels, labels, generator(0, "dropout"), precision)
        optimisers[0].step()
        return len(pixels)

    def straightforward() -> int:
        slow.train()
        optimisers[1].zero_grad()
        nn.functional.cross_entropy(slow(stored), labels).backward()
        optimisers[1].step()
        return len(stored)

    return Job(
        "training step", ours, straightforward, FLOPS_STEP, THREADS, "100 epochs of 30 %", 100 * 3_074, precision
    )


def _classification(windows: Windows, pixels: np.ndarray, stored: Tensor) -> Job:
    model, slow = _model(), Straightforward().eval()

    def ours() -> int:
        predict(model, windows, pixels, "cpu")
        return len(pixels)

    @torch.no_grad()
    def straightforward() -> int:
        for part in stored.split(RECIPE.batch_size):
            slow(part).argmax(dim=1)
        return len(stored)

    return Job("classifying pixels", ours, straightforward, FLOPS_FORWARD, THREADS, "the whole scene", ROWS * COLUMNS)


def _model() -> HybridSN:
    model = HybridSN(RECIPE.window, RECIPE.components, CLASSES)
    initialise(model, generator(0, "benchmark weights"))
    return model
