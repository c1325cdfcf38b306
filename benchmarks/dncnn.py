"""DnCNN: a training step of DnCNN-S and denoising a picture, against the way tutorials show."""

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.run import Job
from common.determinism import generator
from common.device import fast_precision
from papers.dncnn.data import Collection
from papers.dncnn.model import DnCNN, denoise, for_inference, initialise, receptive_field
from papers.dncnn.train import (
    VARIANTS,
    build_model,
    make_optimiser,
    noisy_batch,
    prepare,
    update,
)

THREADS = 2
PATCHES = 32  # in a step: a quarter of the recipe's, at the same cost of each
PICTURE = 256
VARIANT = "sigma25-printed"  # whose noise is fresh; the arithmetic of a step is the same in all of DnCNN-S


def flops_per_pixel(model: DnCNN) -> int:
    """Of the way forward: a multiplication and an addition for every weight of a convolution."""
    return 2 * sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Conv2d))


def jobs() -> list[Job]:
    model = build_model(VARIANTS[VARIANT])
    assert receptive_field(model) == 35
    return [_step(flops_per_pixel(model)), _denoising(flops_per_pixel(model))]


def _step(flops: int) -> Job:
    recipe = VARIANTS[VARIANT]
    draw = generator(0, "benchmark")
    pictures = torch.randint(256, (20, 180, 180), generator=draw, dtype=torch.uint8).numpy()
    material = prepare(Collection({str(n): p for n, p in enumerate(pictures)}, {}), recipe, 0, "cpu")
    which = torch.randperm(len(material.patches), generator=draw)[:PATCHES]
    bf16 = fast_precision("cpu") == torch.bfloat16

    model = _model(recipe)
    model.to(memory_format=torch.channels_last)
    optimiser = make_optimiser(model, recipe)

    def ours() -> int:
        y, v = noisy_batch(material, which, material.patches.turn, recipe, 0, 1, 0)
        update(model, optimiser, y, v, bf16, recipe.clip / 0.1)
        return PATCHES

    slow = _model(recipe)
    slow_optimiser = torch.optim.SGD(slow.parameters(), lr=1e-6, momentum=0.9, weight_decay=1e-4)
    patches = np.stack([_cut(pictures, *(part[n].item() for part in _places(material))) for n in which])

    def straightforward() -> int:
        clean = torch.stack([torch.from_numpy(patch).float() / 255 for patch in patches])[:, None]
        noise = torch.stack([25 / 255 * torch.randn(1, recipe.side, recipe.side) for _ in patches])
        slow_optimiser.zero_grad()
        loss = ((slow(clean + noise) - noise) ** 2).sum() / (2 * len(patches))
        loss.backward()
        slow_optimiser.step()
        return PATCHES

    per_patch = 3 * flops * recipe.side**2  # the way back costs twice the way forward
    precision = torch.bfloat16 if bf16 else torch.float32
    return Job("training step", ours, straightforward, per_patch, THREADS, "50 epochs", 50 * 204_800, precision)


def _places(material) -> tuple[Tensor, Tensor, Tensor]:
    return material.patches.picture, material.patches.top, material.patches.left


def _cut(pictures: np.ndarray, number: int, top: int, left: int) -> np.ndarray:
    side = VARIANTS[VARIANT].side
    return pictures[number, top : top + side, left : left + side]


def _denoising(flops: int) -> Job:
    recipe = VARIANTS[VARIANT]
    slow = _model(recipe).eval()
    fast = for_inference(_model(recipe))
    noisy = torch.rand(1, 1, PICTURE, PICTURE, generator=generator(0, "benchmark picture"))

    def ours() -> int:
        denoise(fast, noisy)
        return 1

    @torch.no_grad()
    def straightforward() -> int:
        _ = noisy - slow(noisy)
        return 1

    return Job(f"denoising {PICTURE} x {PICTURE}", ours, straightforward, flops * PICTURE**2, THREADS, "one", 1)


def _model(recipe) -> DnCNN:
    model = build_model(recipe)
    initialise(model, "he", generator(0, "benchmark weights"))
    return model
