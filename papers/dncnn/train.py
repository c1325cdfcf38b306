"""DnCNN (Zhang, Zuo, Chen, Meng, Zhang, 2017), as printed and as in the authors' code.

The paper reports 31.73, 29.23 and 26.23 dB on BSD68 at noise levels 15, 25 and 50
(DnCNN-S), and 31.61, 29.16 and 26.23 dB from one network for all of them (DnCNN-B).
It trains by SGD; the code that the authors published trains by Adam. `Recipe`
says field by field what is taken from which, and what had to be chosen; so does the
page in README.md.

    bash reproduce.sh dncnn --preset quick
    python -m papers.dncnn.train --variant sigma25-authors --seeds 0
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn

from common.base.errors import UsageError
from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.weights import copied
from common.training.winograd import use_winograd
from papers.dncnn.data import (
    TURNS,
    Collection,
    Patches,
    Pictures,
    grid_patches,
    load,
    random_patches,
    shared_patches,
    spoilt_versions,
)
from papers.dncnn.model import DnCNN, convolutions, for_inference, initialise
from papers.dncnn.noisy_sets import labels_of, mean_psnr, noisy_groups
from papers.dncnn.scores import PEAK

DEVICES = ("cpu", "cuda")
STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 50}  # at whether the loss is finite, which must wait for a GPU
NOISE_BLOCK = 4096  # patches whose noise is drawn at once, where it is drawn once and kept
PAPER_SIGMAS = (15.0, 25.0, 50.0)
# What fits into the memory of a large machine; the paper's recipes stay far below it.
MOST_PIXELS = 4_000_000  # of a batch
MOST_NOISE = 4_000_000_000  # values, of 4 bytes, where noise is kept

Share = Annotated[float, Field(ge=0, le=1)]
NoiseLevel = Annotated[float, Field(ge=0)]
NoiseLevels = tuple[NoiseLevel, NoiseLevel]
Rate = Annotated[float, Field(gt=0)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
Schedule = Annotated[tuple[tuple[Epochs, Rate, Rate], ...], Field(min_length=1)]


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class Recipe:
    """Everything that makes the numbers. 'Code' is the authors' MatConvNet code, version 1.0; 'open'
    marks what neither says."""

    depth: Annotated[int, Field(ge=3, le=100)] = 17  # Sec. III-A: receptive field 35 for a known noise level
    channels: Literal[1, 3] = 1  # Sec. IV-A: 1, grey; 3 in the colour version
    residual: bool = True  # Sec. III-B: the layers give the noise; false: the clean picture, as in half of Fig. 2
    batch_norm: bool = True  # Sec. III-A; false: none, and biases in its place, as in half of Fig. 2
    sigma: NoiseLevels = (25.0, 25.0)  # Sec. IV-A: noise level of a patch, uniform in this range; [0, 55] if blind
    three_tasks: bool = False  # Sec. III-E: super-resolution and JPEG deblocking besides denoising
    side: Annotated[int, Field(ge=8)] = 40  # Sec. IV-A: side of a patch, in pixels
    cutting: Literal["grid", "random"] = "grid"  # code: the grid, of 128 x 1,600 patches; open for other numbers
    patches: Annotated[int, Field(ge=1, le=10_000_000)] = 204_800  # Sec. IV-A, III-E; if random: a grid sets its own
    epoch_patches: Annotated[int, Field(ge=1)] | None = None  # ours: number in an epoch, then others; null: all
    noise: Literal["once", "fresh"] = "fresh"  # code: drawn once and stored; open in the paper: fresh in every epoch
    learning_rate: Schedule = ((50, 1e-1, 1e-4),)  # Sec. IV-A: [[epochs, first, last], ...], exponential between
    optimiser: Literal["sgd", "adam"] = "sgd"  # Sec. IV-A; code: adam
    momentum: Share = 0.9  # Sec. IV-A: of SGD
    weight_decay: Share = 1e-4  # Sec. IV-A; code: of convolution weights only
    # An option of the code, "to prevent exploding gradients in the beginning".
    clip: Share = 0.005  # open: a batch's gradient is clipped to this divided by the rate; 0: no clipping
    restart: bool = False  # code: true: the optimiser's moments are reset at the start of every epoch
    batch_size: Annotated[int, Field(ge=2)] = 128  # Sec. IV-A
    initial_weights: Literal["he", "authors"] = "he"  # Sec. IV-A: He's; code: normal, one standard deviation for all
    bn_momentum: Share = 0.1  # open: of batch normalization's moments; code: 1, those of the very last batch
    held_out: bool = False  # ours: measure on every tenth training picture instead of the test sets
    precision: Literal["fast", "float32"] = "fast"  # ours: of convolutions; weights, statistics and loss are float32

    def __post_init__(self) -> None:
        if self.batch_size * self.side**2 > MOST_PIXELS:
            raise UsageError(
                f"--batch-size {self.batch_size}, --side {self.side}: at most {MOST_PIXELS:,} pixels in a batch."
            )
        if self.sigma[0] > self.sigma[1]:
            raise UsageError(f"--sigma {list(self.sigma)}: the lowest and the highest, as in [0, 55].")

    @property
    def epochs(self) -> int:
        return sum(epochs for epochs, _, _ in self.learning_rate)

    @property
    def test_sigmas(self) -> tuple[float, ...]:
        """The noise levels at which this recipe's network is measured."""
        low, high = self.sigma
        return (low,) if low == high else PAPER_SIGMAS


PRINTED = Recipe()
AUTHORS = Recipe(
    noise="once", learning_rate=((30, 1e-3, 1e-3), (20, 1e-4, 1e-4)), optimiser="adam", weight_decay=0.0, clip=0.0,
    restart=True, initial_weights="authors", bn_momentum=1.0,
)  # fmt: skip
# Sec. III-A, IV-A: depth 20, 128 x 3,000 patches of 50 x 50, noise levels in [0, 55]. What the authors' code
# does for one noise level is kept as it is, except that noise is fresh.
BLIND = {
    "depth": 20, "sigma": (0.0, 55.0), "side": 50, "cutting": "random", "patches": 128 * 3000, "noise": "fresh",
}  # fmt: skip
VARIANTS = {
    **{f"sigma{sigma}-authors": replace(AUTHORS, sigma=(float(sigma),) * 2) for sigma in (15, 25, 50)},
    **{f"sigma{sigma}-printed": replace(PRINTED, sigma=(float(sigma),) * 2) for sigma in (15, 25, 50)},
    "blind-authors": replace(AUTHORS, **BLIND),
    "blind-printed": replace(PRINTED, **BLIND),
    "colour-blind": replace(AUTHORS, **BLIND, channels=3),
    "three-tasks": replace(AUTHORS, **(BLIND | {"patches": 128 * 8000}), three_tasks=True),
}

# Fig. 2: four networks under two optimisers, for noise level 25. The recipe is ours and short: a tenth of the patches
# in an epoch, small batches as in `quick` below, all else as printed; with Adam the code's first and last rate, and
# neither clipping nor weight decay.
FIG2 = {
    "sgd": replace(PRINTED, batch_size=16, epoch_patches=20_480, learning_rate=((4, 1e-1, 1e-4),)),
    "adam": replace(
        PRINTED, batch_size=16, epoch_patches=20_480, learning_rate=((4, 1e-3, 1e-4),),
        optimiser="adam", weight_decay=0.0, clip=0.0,
    ),
}  # fmt: skip
VARIANTS |= {
    f"fig2-{optimiser}-{answer}-{norm}": replace(short, residual=answer == "residual", batch_norm=norm == "bn")
    for optimiser, short in FIG2.items()
    for answer in ("residual", "direct")
    for norm in ("bn", "no-bn")
}

# Small batches make more steps of the few patches that an hour allows; a single small batch gives no moments fit
# for testing, so those of many are averaged; and the lower rate takes only a few epochs to have its effect. The page
# has the runs from which this was chosen.
QUICK = {"batch_size": 16, "bn_momentum": 0.1, "held_out": True}
QUICK_EPOCHS, QUICK_ADAM_RATES, QUICK_PATCHES = 16, ((13, 1e-3, 1e-3), (3, 1e-4, 1e-4)), 20_480

# Ours: how far an hour on two CPU cores gets. What `quick` makes of the authors' recipe, on all of the pictures and in
# half as many epochs, so that two cores without AVX-512 take no more than about an hour.
VARIANTS["sigma25-hour"] = replace(
    VARIANTS["sigma25-authors"], **QUICK | {"held_out": False},
    epoch_patches=QUICK_PATCHES, learning_rate=((6, 1e-3, 1e-3), (2, 1e-4, 1e-4)),
)  # fmt: skip


def recipe(variant: str, preset: str, standin: bool = False) -> Recipe:
    """The recipe of a variant under a preset; on the stand-in shortened to less than two minutes."""
    full = VARIANTS[variant]
    if preset == "smoke":
        short = shortened(full.learning_rate, 2)
        return replace(full, learning_rate=short, side=24, epoch_patches=12, batch_size=4)
    if standin:
        short = shortened(full.learning_rate, 3)
        return replace(full, learning_rate=short, epoch_patches=512, batch_size=32)
    if preset == "quick" and full.epoch_patches:  # recipes of ours, which are short already
        return replace(full, epoch_patches=5_120, held_out=True)
    if preset == "quick":
        patches = QUICK_PATCHES if full.side == PRINTED.side else 10_240  # the others cost nearly twice as much each
        short = QUICK_ADAM_RATES if full.optimiser == "adam" else shortened(full.learning_rate, QUICK_EPOCHS)
        return replace(full, **QUICK, learning_rate=short, epoch_patches=patches)
    return full


def shortened(schedule: Schedule, epochs: int) -> Schedule:
    """The same schedule in fewer epochs, at least one for each part."""
    whole = sum(part for part, _, _ in schedule)
    parts = [max(1, round(part * epochs / whole)) for part, _, _ in schedule]
    return tuple((part, first, last) for part, (_, first, last) in zip(parts, schedule, strict=True))


def rate_of_epoch(recipe: Recipe, number: int) -> float:
    """The learning rate of epoch `number`, counted from 1."""
    for epochs, first, last in recipe.learning_rate:
        if number <= epochs:
            return first * (last / first) ** ((number - 1) / max(1, epochs - 1))
        number -= epochs
    raise ValueError("the recipe has fewer epochs")


@dataclass
class At:
    """What changes in training besides the network and the optimiser.

    Attributes:
        loss: of the steps so far in the epoch, summed on the network's device, so that nothing waits for a GPU.
    """

    loss: Tensor


def train(run: Run, recipe: Recipe) -> Trained:
    """Minibatches of noisy patches, for as many epochs as the recipe has (Sec. III-B, IV-A)."""
    collection = load(run.data, recipe.held_out)
    material = prepare(collection, recipe, run.seed, run.device)
    pictures = next(iter(collection.tests.values()))  # the curve is measured on BSD68, as in Fig. 2
    labels = labels_of(pictures.values(), recipe.channels)
    watched = list(noisy_groups(labels, curve_sigma(recipe), run.device))

    model = build_model(recipe)
    initialise(model, recipe.initial_weights, generator(run.seed, "initial weights"))
    model.to(run.device, memory_format=torch.channels_last)
    optimiser = make_optimiser(model, recipe)
    precision = run.choose_precision(recipe.precision)
    run.note_compiled(use_winograd(model))  # trains so in float32 only; is measured so always

    at = At(loss=torch.zeros((), dtype=torch.float64, device=run.device))
    run.resume(at, model=model, optimiser=optimiser)
    count = recipe.epoch_patches or len(material.patches)
    for number in run.epochs(recipe.epochs, samples=count):
        epoch = number + 1  # from here on counted from 1, as schedule and draws do
        rate = rate_of_epoch(recipe, epoch)
        for group in optimiser.param_groups:
            group["lr"] = rate
        if recipe.restart and run.at_epoch_start:
            optimiser.state.clear()
        order = patches_of_epoch(run.seed, epoch, len(material.patches), recipe).to(run.device)
        turns = turns_of_epoch(run.seed, epoch, material.patches, recipe)
        batches = order.split(recipe.batch_size)

        for step, batch in run.steps(batches):
            y, v = noisy_batch(material, batch, turns, recipe, run.seed, epoch, step)
            at.loss += update(model, optimiser, y, v, precision, recipe.clip / rate)
            if (step + 1) % STEPS_BETWEEN_LOOKS[run.device] == 0 or step + 1 == len(batches):
                run.require_finite(at.loss.item(), f"the loss in epoch {epoch}")
            run.advance(len(batch))

        psnr = mean_psnr(for_inference(model), watched)
        run.require_finite(psnr, f"PSNR after epoch {epoch}")
        model.train()
        run.log(rate=rate, loss=at.loss.item() / len(batches), psnr=psnr)
        at.loss.zero_()

    return Trained(weights=copied(model), split=collection.split_hash())


def build_model(recipe: Recipe) -> DnCNN:
    return DnCNN(recipe.depth, recipe.channels, recipe.bn_momentum, recipe.batch_norm, recipe.residual)


def make_optimiser(model: DnCNN, recipe: Recipe) -> torch.optim.Optimizer:
    """Weight decay is for the weights of convolutions, not for biases and batch normalization (code)."""
    decayed = [layer.weight for layer in convolutions(model)]
    others = [parameter for parameter in model.parameters() if not any(parameter is weight for weight in decayed)]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimiser == "adam":
        return torch.optim.Adam(groups, lr=rate_of_epoch(recipe, 1), fused=True)
    return torch.optim.SGD(groups, lr=rate_of_epoch(recipe, 1), momentum=recipe.momentum, fused=True)


def update(
    model: DnCNN,
    optimiser: torch.optim.Optimizer,
    y: Tensor,
    v: Tensor,
    precision: torch.dtype,
    gradient_limit: float = 0.0,
) -> Tensor:
    """One step down the loss 1/(2N) sum |R(y) - v|^2 (eq. 1). Returns the loss before it.

    Args:
        y, v: noisy patches and their residuals, (N, C, side, side).
        precision: of the convolutions.
        gradient_limit: what the gradient of the batch's sum is clipped to, either way; 0: no limit.
    """
    with torch.autocast(y.device.type, precision, enabled=precision != torch.float32):
        residual = model(y)
    loss = (residual.float() - v).square().sum() / (2 * len(y))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if gradient_limit:
        nn.utils.clip_grad_value_(model.parameters(), gradient_limit / len(y))
    optimiser.step()
    return loss.detach()


def curve_sigma(recipe: Recipe) -> float:
    return recipe.test_sigmas[len(recipe.test_sigmas) // 2]  # 25 where there are three


# ---- patches and their noise -------------------------------------------------------------


@dataclass(frozen=True)
class Material:
    """What patches are cut from, and where; all on the device that trains.

    Attributes:
        inputs, targets: the same except for DnCNN-3, where inputs may be degraded already.
        noisy: (N,) of 1 where a patch gets noise, else 0; None if all get it.
        noise: (N, C, side, side) where it is drawn once and kept.
    """

    inputs: Pictures
    targets: Pictures
    patches: Patches
    noisy: Tensor | None = None
    noise: Tensor | None = None


def prepare(collection: Collection, recipe: Recipe, seed: int, device: str) -> Material:
    """
    Raises:
        UsageError: the pictures do not fit the recipe.
    """
    originals: list[np.ndarray] = list(collection.train.values())
    draw = generator(seed, "patches")
    if recipe.three_tasks:
        inputs, targets = (Pictures(part, recipe.side, device) for part in spoilt_versions(originals, seed))
        patches, noisy = shared_patches(inputs, recipe.patches, draw)
        noisy = noisy.float().to(device)
    else:
        inputs = targets = Pictures(originals, recipe.side, device)
        patches = grid_patches(inputs) if recipe.cutting == "grid" else random_patches(inputs, recipe.patches, draw)
        noisy = None
    if len(inputs.pixels) != recipe.channels:
        raise UsageError(f"--channels {recipe.channels}: the pictures to train on have {len(inputs.pixels)}.")
    if (recipe.epoch_patches or 0) > len(patches):
        raise UsageError(f"--epoch-patches {recipe.epoch_patches}: there are {len(patches)}.")
    noise = noise_kept(len(patches), recipe, seed, device) if recipe.noise == "once" else None
    return Material(inputs, targets, patches.to(device), noisy, noise)


def patches_of_epoch(seed: int, epoch: int, total: int, recipe: Recipe) -> Tensor:
    """Which patches come in an epoch, in their order.

    With `epoch_patches` the shuffled patches are taken in parts, whole parts only, before they are shuffled again:
    a remainder is not seen in that round.
    """
    count = recipe.epoch_patches or total
    round_, part = divmod(epoch - 1, total // count)
    order = torch.randperm(total, generator=generator(seed, "order", round_))
    return order[part * count : (part + 1) * count]


def turns_of_epoch(seed: int, epoch: int, patches: Patches, recipe: Recipe) -> Tensor:
    """How each patch is turned: the grid has all turns, other patches get new ones in every epoch (Sec. III-E)."""
    if recipe.cutting == "grid":
        return patches.turn
    turns = torch.randint(TURNS, (len(patches),), generator=generator(seed, "turns", epoch))
    return turns.to(patches.turn.device)


def noisy_batch(
    material: Material, which: Tensor, turns: Tensor, recipe: Recipe, seed: int, epoch: int, number: int
) -> tuple[Tensor, Tensor]:
    """The patches `which` with their noise, y, and their residuals v = y - x. Each (N, C, side, side)."""
    patches = material.patches[which].turned(turns[which])
    x = material.targets.cut(patches) / PEAK
    if material.noise is not None:
        noise = material.noise[which]
    else:
        noise = draw_noise(len(which), recipe, device_generator(which.device, seed, "noise", epoch, number))
    if material.noisy is None:
        y, v = x + noise, noise
    else:
        y = material.inputs.cut(patches) / PEAK + material.noisy[which, None, None, None] * noise
        v = y - x
    return y.contiguous(memory_format=torch.channels_last), v


def device_generator(device: torch.device, seed: int, purpose: str, epoch: int, index: int) -> torch.Generator:
    """Seeded as the CPU's generator of the same name; on a GPU it draws other numbers from that seed."""
    return torch.Generator(device).manual_seed(generator(seed, purpose, epoch, index).initial_seed())


def draw_noise(count: int, recipe: Recipe, draw: torch.Generator) -> Tensor:
    """Gaussian noise, each patch at its own level, in units where white is 1. Shape (count, C, side, side)."""
    low, high = recipe.sigma
    level = low + (high - low) * torch.rand(count, 1, 1, 1, generator=draw, device=draw.device)
    shape = (count, recipe.channels, recipe.side, recipe.side)
    return torch.randn(shape, generator=draw, device=draw.device) * (level / PEAK)


def noise_kept(count: int, recipe: Recipe, seed: int, device: str) -> Tensor:
    """The noise of every patch, the same in every epoch. Shape (count, C, side, side).

    Raises:
        UsageError: it is too much to keep.
    """
    shape = (count, recipe.channels, recipe.side, recipe.side)
    if math.prod(shape) > MOST_NOISE:
        raise UsageError(f"--noise once: {count:,} patches take {4 * math.prod(shape) / 1e9:,.0f} GB. Use fresh.")
    noise = torch.empty(shape, device=device)
    for number, block in enumerate(noise.split(NOISE_BLOCK)):
        block.copy_(draw_noise(len(block), recipe, device_generator(noise.device, seed, "noise", 0, number)))
    return noise


if __name__ == "__main__":
    from common.cli.commands import run_paper_module

    run_paper_module(__file__)
