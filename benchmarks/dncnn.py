"""DnCNN: a training step of DnCNN-S and denoising a picture, against the way tutorials show."""

import numpy as np
import torch
from torch import nn

from benchmarks.run import Job
from common.determinism import generator
from common.device import fast_precision
from papers.dncnn.data import Collection, Patches
from papers.dncnn.measure import PEAK
from papers.dncnn.model import DnCNN, denoise, for_inference, initialise, receptive_field
from papers.dncnn.train import (
    VARIANTS,
    build_model,
    make_optimiser,
    noisy_batch,
    prepare,
    rate_of_epoch,
    update,
)

THREADS = 2
PATCHES_ON_CPU = 32  # in a step: a quarter of the recipe's, at the same cost of each; a GPU is given the recipe's
PICTURE = 256
RECIPE = VARIANTS["sigma25-printed"]  # whose noise is fresh; the arithmetic of a step is the same in all of DnCNN-S


def flops_per_pixel(model: DnCNN) -> int:
    """Of the way forward: a multiplication and an addition for every weight of a convolution."""
    return 2 * sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Conv2d))


def jobs() -> list[Job]:
    model = build_model(RECIPE)
    assert receptive_field(model) == 35
    return [_step(flops_per_pixel(model)), _denoising(flops_per_pixel(model))]


def _step(flops: int) -> Job:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    draw = generator(0, "benchmark")
    pictures = torch.randint(256, (20, 180, 180), generator=draw, dtype=torch.uint8).numpy()
    material = prepare(Collection({str(n): p for n, p in enumerate(pictures)}, {}), RECIPE, 0, device)
    count = RECIPE.batch if device == "cuda" else PATCHES_ON_CPU
    which = torch.randperm(len(material.patches), generator=draw)[:count]
    patches = np.stack([_cut(pictures, material.patches[n : n + 1].to("cpu")) for n in which])
    which, rate = which.to(device), rate_of_epoch(RECIPE, 1)
    bf16 = fast_precision(device) == torch.bfloat16

    model = _model().to(device, memory_format=torch.channels_last)
    optimiser = make_optimiser(model, RECIPE)

    def ours() -> int:
        y, v = noisy_batch(material, which, material.patches.turn, RECIPE, 0, 1, 0)
        update(model, optimiser, y, v, bf16, RECIPE.clip / rate)
        _wait(device)
        return count

    slow = _model().to(device)
    constants = {"momentum": RECIPE.momentum, "weight_decay": RECIPE.weight_decay}
    slow_optimiser = torch.optim.SGD(slow.parameters(), lr=1e-6, **constants)  # at the recipe's it diverges unclipped

    def straightforward() -> int:
        clean = torch.stack([torch.from_numpy(patch).float() / PEAK for patch in patches])[:, None]
        noise = torch.stack([RECIPE.sigma[0] / PEAK * torch.randn(1, RECIPE.side, RECIPE.side) for _ in patches])
        clean, noise = clean.to(device), noise.to(device)
        slow_optimiser.zero_grad()
        loss = ((slow(clean + noise) - noise) ** 2).sum() / (2 * count)
        loss.backward()
        slow_optimiser.step()
        _wait(device)
        return count

    per_patch = 3 * flops * RECIPE.side**2  # the way back costs twice the way forward
    whole, samples = f"{RECIPE.epochs} epochs", RECIPE.epochs * RECIPE.patches
    precision = torch.bfloat16 if bf16 else torch.float32
    return Job("training step", ours, straightforward, per_patch, THREADS, whole, samples, precision, device)


def _wait(device: str) -> None:
    """A GPU works on after it was asked to."""
    if device == "cuda":
        torch.cuda.synchronize()


def _cut(pictures: np.ndarray, place: Patches) -> np.ndarray:
    number, top, left = (part.item() for part in (place.picture, place.top, place.left))
    return pictures[number, top : top + RECIPE.side, left : left + RECIPE.side]


def _denoising(flops: int) -> Job:
    slow = _model().eval()
    fast = for_inference(_model())
    noisy = torch.rand(1, 1, PICTURE, PICTURE, generator=generator(0, "benchmark picture"))

    def ours() -> int:
        denoise(fast, noisy)
        return 1

    @torch.no_grad()
    def straightforward() -> int:
        _ = noisy - slow(noisy)
        return 1

    return Job(f"denoising {PICTURE} x {PICTURE}", ours, straightforward, flops * PICTURE**2, THREADS, "one", 1)


def _model() -> DnCNN:
    model = build_model(RECIPE)
    initialise(model, RECIPE.weights, generator(0, "benchmark weights"))
    return model
