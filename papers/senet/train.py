"""SENet (Hu, Shen, Albanie, Sun, Wu, 2018 and 2020) on CIFAR-10; imagenet.py has its training on ImageNet.

The paper reports 5.21 % test error for SE-ResNet-110 where ResNet-110 has 6.37 %, and 4.39 % for SE-ResNet-164 where
ResNet-164 has 5.46 % (Table 4). It trains each network as the paper did that the network is from: "[14]" below is its
reference for ResNet-110 and -164, K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks", ECCV
2016, whose recipe is that of the ResNet paper but for a warm-up. Networks of 20 layers, which are not in Table 4, are
trained as the ResNet paper trains its own. What the recipe takes from these papers and what it had to choose is said
field by field in `Recipe`, and on the page in README.md.

    bash reproduce.sh senet
    python -m papers.senet.train --variant resnet20 --seeds 0
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn

from common.base.errors import UsageError
from common.base.metrics import error_percent
from common.data.cifar10 import hold_out, load, on_device
from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.steps import fast_step
from common.training.weights import copied
from common.training.winograd import use_winograd
from papers.senet import imagenet
from papers.senet.data import Standard, augment, of_each_channel, of_each_pixel, random_crops
from papers.senet.imagenet import ImageNetRecipe
from papers.senet.loss import loss_and_mistakes
from papers.senet.model import NETWORKS, REDUCTION, initialise

DEVICES = ("cpu", "cuda")
SEVERAL_DEVICES = True  # on ImageNet
IMAGES_AT_ONCE = 500  # when nothing is learnt; a divisor of 10,000

SMALLEST = {"cifar": 8, "cifar-preactivation": 8, "cifar-preactivation-bottleneck": 11}  # layers
STANDARDS = {"pixel-mean": of_each_pixel, "channel-mean-std": of_each_channel}

Network = Literal["cifar", "cifar-preactivation", "cifar-preactivation-bottleneck"]
Standardisation = Literal["pixel-mean", "channel-mean-std"]
Iterations = Annotated[int, Field(ge=1)]


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class Recipe:
    """Everything that makes the numbers. 'Open' marks what the papers do not say."""

    network: Network = "cifar"  # kind of residual unit
    depth: Annotated[int, Field(ge=8, le=10_000)] = 20  # layers: 6n + 2, with bottlenecks 9n + 2
    reduction: Annotated[int, Field(ge=1)] | None = REDUCTION  # r of the blocks (Sec. 5.1); null: no blocks
    excitation_bias: bool = False  # in the blocks' two layers; open: Eqn. 3 has none, Sec. 6 says that it removes them
    standardisation: Standardisation = "pixel-mean"  # as in the ResNet paper; Sec. 5.1 has channel-mean-std
    iterations: Iterations = 64_000  # batches in all (ResNet paper, Sec. 4.2)
    milestones: tuple[Iterations, ...] = (32_000, 48_000)  # iterations after which the rate is a tenth (same place)
    batch_size: Annotated[int, Field(ge=2, le=50_000)] = 128  # ResNet paper, Sec. 4.2
    learning_rate: Annotated[float, Field(gt=0)] = 0.1  # ResNet paper, Sec. 4.2
    warmup_iterations: Annotated[int, Field(ge=0)] = 0  # the first ones, at a rate of their own; 400 in [14], Appendix
    warmup_rate: Annotated[float, Field(gt=0)] = 0.01  # the rate of these ([14], Appendix)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # ResNet paper, Sec. 4.2
    weight_decay: Annotated[float, Field(ge=0)] = 0.0001  # ResNet paper, Sec. 4.2; open: on all parameters
    held_out: Annotated[int, Field(ge=0)] = 0  # the last so many training pictures to test on
    precision: Literal["fast", "float32"] = "fast"  # of the products; weights, statistics and loss are float32; ours
    compiled: bool = True  # ours: compile the step where it trains on a CPU that has a C++ compiler


def preactivation(depth: int, bottleneck: bool) -> Recipe:
    """Of Table 4, with blocks."""
    network = "cifar-preactivation-bottleneck" if bottleneck else "cifar-preactivation"
    ours = {"standardisation": "channel-mean-std", "compiled": False}
    return Recipe(network, depth, warmup_iterations=400, **ours)


VARIANTS = {
    "se-resnet20": Recipe(),
    "se-preact-resnet110": preactivation(110, bottleneck=False),
    "se-preact-resnet164": preactivation(164, bottleneck=True),
}
VARIANTS |= {name.removeprefix("se-"): replace(full, reduction=None) for name, full in VARIANTS.items()}


def shortened(full: Recipe, iterations: int) -> Recipe:
    """The recipe with its schedule drawn together to so many iterations."""
    milestones = tuple(max(1, milestone * iterations // full.iterations) for milestone in full.milestones)
    warmup = -(-full.warmup_iterations * iterations // full.iterations)
    return replace(full, iterations=iterations, milestones=milestones, warmup_iterations=warmup)


QUICK_LAYERS = 32_000  # times iterations


def recipe(variant: str, preset: str, standin: bool = False) -> Recipe | ImageNetRecipe:
    """The recipe of a variant under a preset; with the stand-in it is shorter whatever the preset."""
    if variant in imagenet.VARIANTS:
        return imagenet.recipe(variant, preset, standin)
    full = VARIANTS[variant]
    if preset == "smoke":
        return replace(shortened(full, 8), depth=SMALLEST[full.network], compiled=False)
    iterations = {"full": full.iterations, "quick": QUICK_LAYERS // full.depth}[preset]
    if standin:
        iterations = min(iterations, 4000 // full.depth)
    return full if iterations == full.iterations else replace(shortened(full, iterations), compiled=False)


def learning_rate(recipe: Recipe, iteration: int) -> float:
    """The rate of an iteration, counted from 0."""
    if iteration < recipe.warmup_iterations:
        return recipe.warmup_rate
    return recipe.learning_rate / 10 ** sum(iteration >= milestone for milestone in recipe.milestones)


def build_model(recipe: Recipe) -> nn.Module:
    return NETWORKS[recipe.network](recipe.depth, reduction=recipe.reduction, bias=recipe.excitation_bias)


@dataclass
class At:
    """What changes in training besides the network and the optimiser."""

    loss: Tensor  # summed over the epoch, as the pictures come
    mistakes: Tensor  # so far in the epoch


def train(run: Run, recipe: Recipe | ImageNetRecipe) -> Trained:
    """Train on what the recipe is for."""
    return imagenet.train(run, recipe) if isinstance(recipe, ImageNetRecipe) else train_on_cifar(run, recipe)


def train_on_cifar(run: Run, recipe: Recipe) -> Trained:
    """So many iterations of stochastic gradient descent over the training set.

    Raises:
        UsageError: several processes, which only training on ImageNet is shared out among.
    """
    if run.processes.count > 1:
        raise UsageError(f"--nproc {run.processes.count}: on CIFAR-10 senet trains on one device; leave it out.")
    cifar = hold_out(load(run.data), recipe.held_out)
    images, labels = on_device(cifar.train_images, run.device), cifar.train_labels.to(run.device)
    test_images = on_device(cifar.test_images, run.device)
    standard = STANDARDS[recipe.standardisation](images)
    count = len(images)
    iterations_per_epoch = -(-count // recipe.batch_size)

    model = build_model(recipe)
    initialise(model, generator(run.seed, "initial weights"))
    model.to(run.device)
    constants = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    optimiser = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, fused=True, **constants)
    precision = run.choose_precision(recipe.precision)
    sizes = {min(recipe.batch_size, count), count % recipe.batch_size} - {0}
    examples = ((augment(images[:n], standard, random_crops(n, run.seed, 0, 0)), labels[:n]) for n in sorted(sizes))
    if recipe.compiled:
        run.note_compiled(use_winograd(model, precision))
    step, how = fast_step(loss_and_mistakes(model, precision), model, examples, recipe.compiled)
    run.note_compiled(how)

    zero = torch.zeros((), dtype=torch.float64, device=run.device)
    at = At(loss=zero, mistakes=zero.long())
    run.resume(at, model=model, optimiser=optimiser)
    for epoch in run.epochs(-(-recipe.iterations // iterations_per_epoch), samples=count):
        first = epoch * iterations_per_epoch
        order = torch.randperm(count, generator=generator(run.seed, "order", epoch)).to(run.device)
        batches = order.split(recipe.batch_size)[: recipe.iterations - first]
        model.train()
        for index, batch in run.steps(batches):
            optimiser.param_groups[0]["lr"] = learning_rate(recipe, first + index)
            crops = random_crops(len(batch), run.seed, epoch, index)
            loss, mistakes = step(augment(images[batch], standard, crops), labels[batch])
            optimiser.step()
            at.loss += loss * len(batch)
            at.mistakes += mistakes
            run.advance(len(batch))

        trained_on = sum(map(len, batches))
        loss, train_error = at.loss.item() / trained_on, 100 * at.mistakes.item() / trained_on
        run.require_finite(loss, f"the loss in epoch {epoch + 1}")
        predicted = classify(model, test_images, standard, precision)
        tested = error_percent(predicted, cifar.test_labels)
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
def classify(model: nn.Module, images: Tensor, standard: Standard, precision: torch.dtype = torch.float32) -> Tensor:
    """The class of each picture, from a single view.

    Args:
        images: (N, 3, 32, 32), uint8, on the model's device.

    Returns:
        (N,), on the CPU.
    """
    model.eval()
    with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
        parts = [model(standard(part)).argmax(1) for part in images.split(IMAGES_AT_ONCE)]
    return torch.cat(parts).cpu()


if __name__ == "__main__":
    from common.cli.commands import run_paper_module

    run_paper_module(__file__)
