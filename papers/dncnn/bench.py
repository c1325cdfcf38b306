"""DnCNN: a training step of DnCNN-S and denoising a picture, against the way tutorials do it."""

import math

import numpy as np
import torch

from common.publishing.bench import Job
from common.publishing.growth import Growth, typical_seconds
from common.training.determinism import generator
from common.training.device import fast_precision
from common.training.winograd import use_winograd
from papers.dncnn.data import Collection, Patches
from papers.dncnn.model import DnCNN, convolutions, denoise, for_inference, initialise
from papers.dncnn.scores import PEAK
from papers.dncnn.train import (
    STEPS_BETWEEN_LOOKS,
    VARIANTS,
    build_model,
    make_optimiser,
    noisy_batch,
    prepare,
    rate_of_epoch,
    update,
)

THREADS = 2
PATCHES_ON_CPU = 32  # in a step: a quarter of the recipe's, at the same cost of each; a GPU gets the recipe's
PICTURE = 256
SIDES = (64, 128, 256, 512, 1024)
RECIPE = VARIANTS["sigma25-printed"]  # whose noise is fresh; the arithmetic of a step is the same in all of DnCNN-S


def flops_per_pixel(model: DnCNN) -> int:
    """Of the forward pass: a multiplication and an addition for every weight of a convolution."""
    return 2 * sum(layer.weight.numel() for layer in convolutions(model))


def jobs() -> list[Job]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flops = flops_per_pixel(build_model(RECIPE))
    return [_step(flops, device), _denoising(flops, device)]


def growth() -> list[Growth]:
    return [
        Growth("DnCNN: a training step", "patches in a batch", (8, 16, 32, 64), _seconds_of_step),
        Growth("DnCNN: denoising a picture", "pixels", tuple(side**2 for side in SIDES), _seconds_of_denoising),
    ]


def _seconds_of_step(patches: int) -> float:
    model = _model().to(memory_format=torch.channels_last)
    use_winograd(model, fast_precision("cpu"))
    optimiser = make_optimiser(model, RECIPE)
    clean, noise = torch.rand(2, patches, 1, RECIPE.side, RECIPE.side, generator=generator(0, "benchmark"))
    noisy = (clean + noise).contiguous(memory_format=torch.channels_last)
    limit = RECIPE.clip / rate_of_epoch(RECIPE, 1)
    return typical_seconds(lambda: update(model, optimiser, noisy, noise, fast_precision("cpu"), limit))


def _seconds_of_denoising(pixels: int) -> float:
    side = math.isqrt(pixels)
    network, noisy = for_inference(_model()), torch.rand(1, 1, side, side, generator=generator(0, "benchmark picture"))
    return typical_seconds(lambda: denoise(network, noisy))


def _step(flops: int, device: str) -> Job:
    """As many steps as training takes between two checks of the loss: a GPU is given work before it has finished."""
    steps = STEPS_BETWEEN_LOOKS[device]
    draw = generator(0, "benchmark")
    pictures = torch.randint(256, (20, 180, 180), generator=draw, dtype=torch.uint8).numpy()
    material = prepare(Collection({str(n): p for n, p in enumerate(pictures)}, {}), RECIPE, 0, device)
    count = RECIPE.batch_size if device == "cuda" else PATCHES_ON_CPU
    which = torch.randperm(len(material.patches), generator=draw)[:count]
    patches = np.stack([_cut(pictures, material.patches[n : n + 1].to("cpu")) for n in which])
    which, rate = which.to(device), rate_of_epoch(RECIPE, 1)
    precision = fast_precision(device)

    model = _model().to(device, memory_format=torch.channels_last)
    use_winograd(model, precision)
    optimiser = make_optimiser(model, RECIPE)

    def ours() -> int:
        for number in range(steps):
            y, v = noisy_batch(material, which, material.patches.turn, RECIPE, 0, 1, number)
            update(model, optimiser, y, v, precision, RECIPE.clip / rate)
        _wait(device)
        return steps * count

    slow = _model().to(device)
    constants = {"momentum": RECIPE.momentum, "weight_decay": RECIPE.weight_decay}
    slow_optimiser = torch.optim.SGD(slow.parameters(), lr=1e-6, **constants)  # at the recipe's it diverges unclipped

    def straightforward() -> int:
        for _ in range(steps):
            clean = torch.stack([torch.from_numpy(patch).float() / PEAK for patch in patches])[:, None]
            noise = torch.stack([RECIPE.sigma[0] / PEAK * torch.randn(1, RECIPE.side, RECIPE.side) for _ in patches])
            clean, noise = clean.to(device), noise.to(device)
            slow_optimiser.zero_grad()
            loss = ((slow(clean + noise) - noise) ** 2).sum() / (2 * count)
            loss.backward()
            slow_optimiser.step()
        _wait(device)
        return steps * count

    per_patch = 3 * flops * RECIPE.side**2  # the backward pass costs twice the forward pass
    whole, samples = f"{RECIPE.epochs} epochs", RECIPE.epochs * RECIPE.patches
    return Job("training step", ours, straightforward, per_patch, THREADS, whole, samples, precision, device)


def _wait(device: str) -> None:
    """A GPU is still working when a call to it returns."""
    if device == "cuda":
        torch.cuda.synchronize()


def _cut(pictures: np.ndarray, place: Patches) -> np.ndarray:
    number, top, left = (part.item() for part in (place.picture, place.top, place.left))
    return pictures[number, top : top + RECIPE.side, left : left + RECIPE.side]


def _denoising(flops: int, device: str) -> Job:
    slow = _model().eval().to(device)
    fast = for_inference(_model().to(device))
    noisy = torch.rand(1, 1, PICTURE, PICTURE, generator=generator(0, "benchmark picture")).to(device)

    def ours() -> int:
        denoise(fast, noisy)
        _wait(device)
        return 1

    @torch.no_grad()
    def straightforward() -> int:
        _ = noisy - slow(noisy)
        _wait(device)
        return 1

    per_picture = flops * PICTURE**2
    name = f"denoising {PICTURE} x {PICTURE}"
    return Job(name, ours, straightforward, per_picture, THREADS, "one", 1, torch.float32, device)


def _model() -> DnCNN:
    model = build_model(RECIPE)
    initialise(model, RECIPE.initial_weights, generator(0, "benchmark weights"))
    return model
