"""GoogLeNet (Szegedy et al., 2014), trained on photographs of five kinds of flowers; imagenet.py trains it on ImageNet.

The paper reports 10.07 % top-5 error on ImageNet for one network and one crop, 6.67 % for seven networks and 144
(Table 3), and gives no more than a part of its recipe (Sec. 6). Here the same network, with and without its two
auxiliary heads, learns 750 pictures. What the recipe takes from the paper and what it had to choose is said
field by field in `Recipe`, and on the page in README.md.

    bash reproduce.sh googlenet
    python -m papers.googlenet.train --variant flowers-without-heads --seeds 0
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Annotated, Literal

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common.base.errors import UsageError
from common.base.metrics import error_percent
from common.data.flowers import load, split
from common.data.splits import split_hash
from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.weights import copied
from common.training.winograd import use_winograd
from papers.googlenet import imagenet
from papers.googlenet.crops import CROPS_AT_ONCE, PROTOCOLS, Protocol, predict
from papers.googlenet.imagenet import ImageNetRecipe
from papers.googlenet.model import GoogLeNet, Initial, check_side, initialise, without_heads
from papers.googlenet.sampling import stack, training_batch
from papers.googlenet.sgd import as_input, learning_rate, losses

DEVICES = ("cpu", "cuda")
SEVERAL_DEVICES = True  # on ImageNet: each process takes its share of every batch


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class Recipe:
    """Everything that makes the numbers. 'Open' marks what the paper does not say."""

    network: Literal["paper", "bn"] = "paper"  # Table 1; bn: with batch normalization, ours
    heads: bool = True  # auxiliary classifiers on 4a and 4d (Sec. 5)
    head_weight: Annotated[float, Field(ge=0)] = 0.3  # of each head's loss (Sec. 5)
    side: int = 112  # of what the network sees, in pixels; Sec. 5: 224, larger than these pictures
    distortion: Annotated[float, Field(ge=0, lt=1)] = 0.4  # of brightness, contrast and colour; Howard: 0.5 (Sec. 6)
    grey_level: Annotated[float, Field(gt=0)] = 1 / 64  # open: what one of 255 is worth to the network
    initial_weights: Initial = "he"  # open: how they are drawn
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 70  # open: passes over the training pictures
    batch_size: Annotated[int, Field(ge=2, le=1000)] = 32  # open: patches; BVLC's GoogLeNet has 32
    learning_rate: Annotated[float, Field(gt=0)] = 0.005  # open: of the first epoch
    decay: Annotated[float, Field(gt=0, le=1)] = 0.96  # of the rate, all `decay_epochs` (Sec. 6: by 4 %)
    decay_epochs: Annotated[int, Field(ge=1)] = 8  # Sec. 6
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # Sec. 6
    weight_decay: Annotated[float, Field(ge=0)] = 0.0002  # open: not in the paper
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.99  # Polyak averaging (Sec. 6); open: the mean's share at a step
    held_out: bool = False  # test on a fifth of the training pictures, which then do not train, for choosing
    precision: Literal["fast", "float32"] = "fast"  # of the products; weights, statistics and loss are float32; ours

    def __post_init__(self) -> None:
        check_side(self.side)


VARIANTS = {
    "flowers": Recipe(),
    "flowers-without-heads": Recipe(heads=False),
    "flowers-bn": Recipe("bn"),
}


def recipe(variant: str, preset: str, standin: bool = False) -> Recipe | ImageNetRecipe:
    """The recipe of a variant under a preset; with the stand-in it is shorter whatever the preset."""
    if variant in imagenet.VARIANTS:
        return imagenet.recipe(variant, preset, standin)
    full = VARIANTS[variant]
    if preset == "smoke":
        return replace(full, side=80, epochs=2)
    if standin:
        return replace(full, epochs=15)
    return {"full": full, "quick": replace(full, epochs=8)}[preset]


@dataclass
class At:
    """What changes in training besides the network, its average and the optimiser: sums over the epoch so far."""

    loss: Tensor  # of the classifier itself, without the heads
    mistakes: Tensor
    gradients: Tensor  # norms of the loss's gradient, module by module


def train(run: Run, recipe: Recipe | ImageNetRecipe) -> Trained:
    """Train on what the recipe is for."""
    return imagenet.train(run, recipe) if isinstance(recipe, ImageNetRecipe) else train_on_flowers(run, recipe)


def train_on_flowers(run: Run, recipe: Recipe) -> Trained:
    """Stochastic gradient descent over patches of the training pictures (Sec. 6).

    Raises:
        UsageError: there are several processes.
    """
    if run.processes.count > 1:
        raise UsageError("--nproc: training on the flowers takes one device; leave it out.")
    flowers = load(run.data)
    parts = split(flowers, recipe.held_out)
    pictures = [flowers.pictures[number] for number in parts.train]
    mean = mean_colour(pictures).to(run.device)
    tested = [flowers.pictures[number] for number in parts.test]
    shown, labels = stack(pictures, run.device), flowers.labels[parts.train].to(run.device)
    count = len(pictures)

    model = GoogLeNet(len(flowers.classes), recipe.network, recipe.heads, recipe.side)
    initialise(model, generator(run.seed, "initial weights"), recipe.initial_weights)
    model.to(run.device)
    precision = run.choose_precision(recipe.precision)
    run.note_compiled(use_winograd(model, precision))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging), use_buffers=True)
    constants = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    optimiser = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, fused=True, **constants)

    zero = torch.zeros((), dtype=torch.float64, device=run.device)
    at = At(loss=zero, mistakes=zero.long(), gradients=zero.repeat(len(trunk(model))))
    run.resume(at, model=model, average=average, optimiser=optimiser)
    for epoch in run.epochs(recipe.epochs, samples=count):
        order = torch.randperm(count, generator=generator(run.seed, "order", epoch))
        batches = order.split(recipe.batch_size)
        optimiser.param_groups[0]["lr"] = learning_rate(recipe, epoch)
        model.train()
        for index, batch in run.steps(batches):
            patches = generator(run.seed, "patches", epoch, index)
            seen = as_input(training_batch(shown[batch], recipe.side, recipe.distortion, patches), mean, recipe)
            label = labels[batch.to(run.device)]
            dropped = generator(run.seed, "dropout", epoch, index)
            logits, loss, loss_of_heads = losses(model, seen, label, dropped, precision)
            optimiser.zero_grad()
            (loss + recipe.head_weight * loss_of_heads).backward()
            at.gradients += gradient_norms(model)
            optimiser.step()
            average.update_parameters(model)
            at.loss += loss.detach() * len(batch)
            at.mistakes += (logits.argmax(1) != label).sum()
            run.advance(len(batch))

        loss = at.loss.item() / count
        run.require_finite(loss, f"the loss in epoch {epoch + 1}")
        predicted = classify(average.module, tested, mean, recipe, PROTOCOLS[1], precision).argmax(1)
        error = error_percent(predicted, flowers.labels[parts.test])
        norms = (at.gradients / len(batches)).tolist()
        run.log(
            loss=loss,
            train_error=100 * at.mistakes.item() / count,
            **{"held_out_error" if recipe.held_out else "test_error": error},
            **{f"gradient_{name}": norm for name, norm in zip(trunk(model), norms, strict=True)},
        )
        for total in (at.loss, at.mistakes, at.gradients):
            total.zero_()

    names = {"train": parts.train, "test": parts.test}
    return Trained(
        weights=without_heads(copied(average.module)),
        split=split_hash(**{side: [flowers.names[number] for number in part] for side, part in names.items()}),
        metrics=metrics_of_curves(run.curves, recipe),
    )


def metrics_of_curves(curves: dict[str, list[float]], recipe: Recipe | ImageNetRecipe) -> dict[str, dict[str, float]]:
    """The gradient that reaches the first layer, mean over all epochs; on ImageNet it is not measured."""
    if isinstance(recipe, ImageNetRecipe):
        return {}
    return {"training": {"gradient_norm": fmean(curves["gradient_conv1"])}}


def mean_colour(pictures: Sequence[Tensor]) -> Tensor:
    """The mean of each colour over all pixels of pictures (3, H, W), uint8. Shape (3, 1, 1), from exact sums."""
    sums = torch.stack([picture.sum((1, 2), dtype=torch.int64) for picture in pictures]).sum(0)
    return (sums.double() / sum(picture[0].numel() for picture in pictures)).float()[:, None, None]


def trunk(model: GoogLeNet) -> dict[str, nn.Module]:
    """The modules that have weights, from the first to the last, without the heads."""
    return {name: part for name, part in model.named_children() if name != "heads" and list(part.parameters())}


def gradient_norms(model: GoogLeNet) -> Tensor:
    """The norm of the gradient of each module of the trunk, (modules,)."""
    of_each = [[parameter.grad for parameter in part.parameters()] for part in trunk(model).values()]
    return torch.stack([get_total_norm(gradients) for gradients in of_each])


def classify(
    model: nn.Module,
    pictures: Sequence[Tensor],
    mean: Tensor,
    recipe: Recipe,
    protocol: Protocol,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Probabilities of the classes (pictures, classes), the mean over the crops of each picture, on the CPU.

    Args:
        pictures: each (3, H, W), uint8, on the CPU.
        mean: the mean colour of the training pictures, on the model's device.
    """
    device = mean.device.type

    def prepare(crops: Tensor) -> Tensor:
        return as_input(crops.to(device), mean, recipe)

    model.eval()
    with torch.autocast(device, precision, enabled=precision != torch.float32):
        return predict([model], pictures, recipe.side, protocol, prepare, CROPS_AT_ONCE[device])


if __name__ == "__main__":
    from common.cli.commands import run_paper_module

    run_paper_module(__file__)
