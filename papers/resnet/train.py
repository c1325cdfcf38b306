"""ResNet (He, Zhang, Ren, Sun, 2016) on CIFAR-10, trained as printed; imagenet.py has the other half of the paper.

The paper reports 8.75 % test error with 20 layers and 6.61 ± 0.16 % with 110 (Table 6), and that plain networks get
worse with depth where residual ones get better (Fig. 6). What the recipe takes from the paper and what it had to
choose is said field by field in `Recipe`, and on the page in README.md.

    bash reproduce.sh resnet
    python -m papers.resnet.train --variant resnet32 --seeds 0
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn

from common.base.errors import UsageError
from common.data.cifar10 import hold_out, load, on_device
from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.steps import fast_step, gradient_of, put_gradient
from common.training.weights import copied
from common.training.winograd import use_winograd
from papers.resnet import imagenet
from papers.resnet.data import augment, mean_picture, random_crops, subtract_mean
from papers.resnet.imagenet import ImageNetRecipe
from papers.resnet.loss import loss_and_mistakes
from papers.resnet.model import CifarResNet, initialise

DEVICES = ("cpu", "cuda")
SEVERAL_DEVICES = True  # each process takes its share of every batch, and normalises that
IMAGES_AT_ONCE = 500  # when nothing is learnt; a divisor of 10,000

Iterations = Annotated[int, Field(ge=1)]


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class Recipe:
    """Everything that makes the numbers. 'Open' marks what the paper does not say."""

    depth: Annotated[int, Field(ge=8, le=10_000)] = 20  # layers, 6n + 2 (Sec. 4.2)
    shortcuts: Literal["none", "A", "B"] = "A"  # none in a plain network; A in all residual ones (Sec. 4.2)
    iterations: Iterations = 64_000  # batches in all (Sec. 4.2)
    milestones: tuple[Iterations, ...] = (32_000, 48_000)  # iterations after which the rate is a tenth (Sec. 4.2)
    batch_size: Annotated[int, Field(ge=2, le=50_000)] = 128  # Sec. 4.2
    learning_rate: Annotated[float, Field(gt=0)] = 0.1  # Sec. 4.2
    warmup_rate: Annotated[float, Field(gt=0)] | None = None  # first rate; 0.01 for 110 layers (Sec. 4.2); null: none
    warmup_error: Annotated[float, Field(ge=0, le=100)] = 80.0  # training error, in %, that ends the warm-up (Sec. 4.2)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # Sec. 4.2
    weight_decay: Annotated[float, Field(ge=0)] = 0.0001  # Sec. 4.2; open: on all parameters
    held_out: Annotated[int, Field(ge=0)] = 0  # the last so many training pictures to test on; Sec. 4.2: 5,000
    precision: Literal["fast", "float32"] = "fast"  # of the products; weights, statistics and loss are float32; ours
    compiled: bool = True  # ours: compile the step where it trains on a CPU that has a C++ compiler


def shortened(full: Recipe, iterations: int) -> Recipe:
    """The recipe with its schedule drawn together to so many iterations."""
    milestones = tuple(max(1, milestone * iterations // full.iterations) for milestone in full.milestones)
    return replace(full, iterations=iterations, milestones=milestones)


VARIANTS = {f"resnet{depth}": Recipe(depth) for depth in (20, 32, 44, 56)}
VARIANTS |= {f"resnet{depth}": Recipe(depth, warmup_rate=0.01, compiled=False) for depth in (110, 1202)}
VARIANTS |= {f"plain{depth}": Recipe(depth, "none") for depth in (20, 56)}
VARIANTS |= {f"{name}-8k": shortened(VARIANTS[name], 8000) for name in ("resnet20", "resnet56", "plain20", "plain56")}


QUICK_LAYERS = 32_000  # times iterations


def recipe(variant: str, preset: str, standin: bool = False) -> Recipe | ImageNetRecipe:
    """The recipe of a variant under a preset; with the stand-in it is shorter whatever the preset."""
    if variant in imagenet.VARIANTS:
        return imagenet.recipe(variant, preset, standin)
    full = VARIANTS[variant]
    if preset == "smoke":
        return replace(shortened(full, 8), depth=8, compiled=False)
    # A quick takes about as long for every depth, and for a schedule that is short already.
    iterations = {"full": full.iterations, "quick": QUICK_LAYERS // full.depth}[preset]
    if standin:
        iterations = min(iterations, 4000 // full.depth)
    if iterations == full.iterations:
        return full
    # Without a warm-up: it ends with an epoch, and a quick run of 110 layers is shorter than one.
    return replace(shortened(full, iterations), warmup_rate=None, compiled=False)


def learning_rate(recipe: Recipe, iteration: int, warming_up: bool = False) -> float:
    """The rate of an iteration, counted from 0."""
    if warming_up:
        return recipe.warmup_rate
    return recipe.learning_rate / 10 ** sum(iteration >= milestone for milestone in recipe.milestones)


def build_model(recipe: Recipe) -> CifarResNet:
    return CifarResNet(recipe.depth, recipe.shortcuts)


@dataclass
class At:
    """What changes in training besides the network and the optimiser."""

    warming_up: bool
    loss: Tensor  # summed over the epoch, as the pictures come
    mistakes: Tensor  # so far in the epoch


def train(run: Run, recipe: Recipe | ImageNetRecipe) -> Trained:
    """Train on what the recipe is for."""
    return imagenet.train(run, recipe) if isinstance(recipe, ImageNetRecipe) else train_on_cifar(run, recipe)


def train_on_cifar(run: Run, recipe: Recipe) -> Trained:
    """So many iterations of stochastic gradient descent over the training set (Sec. 4.2).

    Raises:
        UsageError: more processes than the smallest batch has pictures.
    """
    processes, share = run.processes, run.processes.share
    cifar = hold_out(load(run.data), recipe.held_out)
    images, labels = on_device(cifar.train_images, run.device), cifar.train_labels.to(run.device)
    test_images, test_labels = on_device(cifar.test_images[share], run.device), cifar.test_labels[share]
    mean = mean_picture(images)
    count = len(images)
    iterations_per_epoch = -(-count // recipe.batch_size)

    model = build_model(recipe)
    initialise(model, generator(run.seed, "initial weights"))
    model.to(run.device)
    constants = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    optimiser = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, fused=True, **constants)
    precision = run.choose_precision(recipe.precision)
    sizes = {min(recipe.batch_size, count), count % recipe.batch_size} - {0}
    if min(sizes) < processes.count:
        raise UsageError(f"--nproc {processes.count}: a batch of {min(sizes)} pictures is too small for them.")
    shares = sorted({len(range(size)[share]) for size in sizes})
    examples = ((augment(images[:n], mean, random_crops(n, run.seed, 0, 0)), labels[:n]) for n in shares)
    if recipe.compiled:
        run.note_compiled(use_winograd(model, precision))
    step, how = fast_step(loss_and_mistakes(model, precision), model, examples, recipe.compiled)
    run.note_compiled(how)

    zero = torch.zeros((), dtype=torch.float64, device=run.device)
    at = At(recipe.warmup_rate is not None, loss=zero, mistakes=zero.long())
    run.resume(at, model=model, optimiser=optimiser)
    for epoch in run.epochs(-(-recipe.iterations // iterations_per_epoch), samples=count):
        first = epoch * iterations_per_epoch
        order = torch.randperm(count, generator=generator(run.seed, "order", epoch)).to(run.device)
        batches = order.split(recipe.batch_size)[: recipe.iterations - first]
        model.train()
        for index, batch in run.steps(batches):
            optimiser.param_groups[0]["lr"] = learning_rate(recipe, first + index, at.warming_up)
            crops, mine = random_crops(len(batch), run.seed, epoch, index)[share], batch[share]
            loss, mistakes = step(augment(images[mine], mean, crops), labels[mine])
            if processes.count > 1:
                put_gradient(model, processes.sum(gradient_of(model) * (len(mine) / len(batch))))
            optimiser.step()
            at.loss += processes.sum(loss * len(mine))
            at.mistakes += processes.sum(mistakes)
            run.advance(len(batch))

        trained_on = sum(map(len, batches))
        loss, train_error = at.loss.item() / trained_on, 100 * at.mistakes.item() / trained_on
        run.require_finite(loss, f"the loss in epoch {epoch + 1}")
        at.warming_up = at.warming_up and train_error >= recipe.warmup_error
        processes.copy_first(model.buffers())  # the moments that a test uses are those of its shares
        wrong = (classify(model, test_images, mean, precision) != test_labels).sum()
        tested = 100 * processes.sum(wrong).item() / len(cifar.test_labels)
        run.log(
            iteration=first + len(batches),
            loss=loss,
            train_error=train_error,
            **{"held_out_error" if recipe.held_out else "test_error": tested},
        )
        at.loss.zero_()
        at.mistakes.zero_()

    return Trained(weights=copied(model), split=cifar.split_hash())


@torch.no_grad()
def classify(model: nn.Module, images: Tensor, mean: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """The class of each picture, from a single view (Sec. 4.2).

    Args:
        images: (N, 3, 32, 32), uint8, on the model's device.

    Returns:
        (N,), on the CPU.
    """
    model.eval()
    with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
        parts = [model(subtract_mean(part, mean)).argmax(1) for part in images.split(IMAGES_AT_ONCE)]
    return torch.cat(parts).cpu()


if __name__ == "__main__":
    from common.cli.commands import run_paper_module

    run_paper_module(__file__)
