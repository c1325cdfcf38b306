"""SENet on ImageNet (Sec. 5.1): ResNets and ResNeXts with and without SE blocks, on one device or on many.

bash reproduce.sh senet --variant imagenet-se-resnet50 --nproc 8
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn

from common.base.errors import UsageError
from common.data.colours import colours_of
from common.data.decoding import Crop, Decoded, centre, cores_to_decode, one_crop
from common.data.imagenet import Part, load, mistakes
from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.steps import fast_step, gradient_of, put_gradient
from common.training.weights import copied
from common.training.winograd import use_winograd
from papers.senet.loss import loss_and_mistakes
from papers.senet.model import NETWORKS, REDUCTION, initialise
from papers.senet.patches import Patch, draw_patches

AT_ONCE = 50  # pictures, when nothing is learnt
MEAN = "mean_colour"  # what was subtracted in training, kept with the weights

Pixels = Annotated[int, Field(ge=1, le=10_000)]


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class ImageNetRecipe:
    """Everything that makes the numbers. 'Open' marks what the paper does not say."""

    network: Literal["imagenet", "imagenet-resnext"] = "imagenet"  # ResNet, or ResNeXt 32x4d (Table 2)
    depth: int = 50  # layers (Table 2)
    reduction: Annotated[int, Field(ge=1)] | None = REDUCTION  # r of the blocks (Sec. 5.1); null: no blocks
    excitation_bias: bool = False  # in the blocks' two layers; open: Eqn. 3 has none, Sec. 6 says that it removes them
    caffe_pool: bool = False  # the first pooling without padding; open: true in the networks that the authors released
    epochs: Annotated[int, Field(ge=1)] = 100  # Sec. 5.1; what cannot fill a batch is left out
    batch_size: Annotated[int, Field(ge=2)] = 1024  # Sec. 5.1
    group: Annotated[int, Field(ge=2)] = 32  # pictures that are normalised together; open
    learning_rate: Annotated[float, Field(gt=0)] = 0.6  # of the first epoch (Sec. 5.1)
    drop_every: Annotated[int, Field(ge=1)] = 30  # epochs, after which the rate is a tenth (Sec. 5.1)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # Sec. 5.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0001  # open: the ResNet paper's, on all parameters
    side: Pixels = 224  # of what the network sees (Sec. 5.1)
    test_scale: Pixels = 256  # shorter side of a picture whose middle is tested (Sec. 5.1)
    precision: Literal["fast", "float32"] = "fast"  # of the products; weights, statistics and loss are float32; ours

    def __post_init__(self) -> None:
        if self.side > self.test_scale:
            raise UsageError(f"--side {self.side}: larger than the {self.test_scale} pixels of --test-scale.")


VARIANTS = {f"imagenet-se-resnet{depth}": ImageNetRecipe(depth=depth) for depth in (50, 101, 152)}
VARIANTS |= {f"imagenet-se-resnext{depth}": ImageNetRecipe("imagenet-resnext", depth) for depth in (50, 101)}
RELEASED = {
    f"{name}-released": replace(full, excitation_bias=True, caffe_pool=True) for name, full in VARIANTS.items()
}  # the networks of the authors' weights
VARIANTS |= {name.replace("-se-", "-"): replace(full, reduction=None) for name, full in VARIANTS.items()}
VARIANTS |= RELEASED


def recipe(variant: str, preset: str, standin: bool) -> ImageNetRecipe:
    """The recipe of a variant under a preset; with the stand-in it is shorter, and its pictures smaller, whatever the
    preset."""
    full = VARIANTS[variant]
    if preset == "smoke" or standin:
        small = replace(full, epochs=2, drop_every=1, batch_size=16, group=8, side=56, test_scale=64)
        return replace(small, depth=50) if preset == "smoke" else small
    return {"full": full, "quick": replace(full, epochs=1)}[preset]


def learning_rate(recipe: ImageNetRecipe, epoch: int) -> float:
    """The rate of an epoch, counted from 0."""
    return recipe.learning_rate / 10 ** (epoch // recipe.drop_every)


def build_model(recipe: ImageNetRecipe, classes: int) -> nn.Module:
    ours = {"bias": recipe.excitation_bias, "caffe_pool": recipe.caffe_pool}
    return NETWORKS[recipe.network](recipe.depth, reduction=recipe.reduction, classes=classes, **ours)


def as_input(pixels: Tensor, mean: Tensor) -> Tensor:
    """What a network takes (Sec. 5.1): pictures (N, 3, S, S), uint8, less the mean colour (3,); as float32."""
    return pixels.to(torch.float32, memory_format=torch.channels_last) - mean[:, None, None]


@dataclass
class At:
    """What changes in training besides the network and the optimiser."""

    sums: Tensor  # of the loss and of the mistakes, over the epoch, as the pictures come


def train(run: Run, recipe: ImageNetRecipe) -> Trained:
    """Synchronous stochastic gradient descent (Sec. 5.1).

    A batch is made of groups, each normalised by itself. Every process takes its share of them, one after the other,
    and the gradients are added up; so what is learnt does not depend, but for rounding, on how many
    processes there are.

    Raises:
        UsageError: the groups of a batch cannot be shared out evenly, or there are fewer pictures than in a batch.
    """
    data, processes = load(run.data), run.processes
    count, batch_size, group = len(data.train), recipe.batch_size, recipe.group
    if count < batch_size:
        raise UsageError(f"--batch-size {batch_size}: there are {count} pictures to train on.")
    mine = processes.groups_of(batch_size, group)
    trained_on = count - count % batch_size  # in an epoch
    workers = cores_to_decode(run.device)
    looked = colours_of(data.train.pictures, recipe.test_scale, workers).mean if processes.first else None
    mean = processes.from_first(looked).to(run.device)

    model = build_model(recipe, data.classes)
    initialise(model, generator(run.seed, "initial weights"))
    model.to(run.device)
    constants = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    optimiser = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, fused=True, **constants)
    precision = run.choose_precision(recipe.precision)
    example = torch.zeros(group, 3, recipe.side, recipe.side, device=run.device)
    example = example.to(memory_format=torch.channels_last), torch.zeros(group, dtype=torch.long, device=run.device)
    run.note_compiled(use_winograd(model, precision))
    step, how = fast_step(loss_and_mistakes(model, precision), model, [example], compiled=False)
    run.note_compiled(how)

    def patches(epoch: int, batches: Sequence[Tensor], index: int) -> list[Patch]:
        drawn = draw_patches(batches[index], generator(run.seed, "patches", epoch, index))
        return [drawn[place] for place in mine.tolist()]

    at = At(torch.zeros(2, dtype=torch.float64, device=run.device))
    run.resume(at, model=model, optimiser=optimiser)
    for epoch in run.epochs(recipe.epochs, samples=trained_on):
        order = torch.randperm(count, generator=generator(run.seed, "order", epoch))
        batches = order[:trained_on].split(batch_size)
        seen = partial(patches, epoch, batches)
        decoded = Decoded(data.train.pictures, seen, len(batches), recipe.side, run.device, workers)
        rate = learning_rate(recipe, epoch)
        optimiser.param_groups[0]["lr"] = rate
        model.train()
        for index, pixels in run.steps(decoded):
            labels = data.train.labels[batches[index][mine]].to(run.device)
            gradient, sums = 0, 0
            for part, label in zip(as_input(pixels, mean).split(group), labels.split(group), strict=True):
                loss, wrong = step(part, label)
                gradient = gradient + gradient_of(model) * (group / batch_size)
                sums = sums + torch.stack([loss.double() * group, wrong.double()])
            put_gradient(model, processes.sum(gradient))
            optimiser.step()
            at.sums += processes.sum(sums)
            run.advance(batch_size)

        loss, train_error = (at.sums / trained_on).tolist()
        run.require_finite(loss, f"the loss in epoch {epoch + 1}")
        processes.copy_first(model.buffers())  # the moments that a test uses are those of its groups
        wrong = mistakes_on(model, data.test, recipe, mean, processes.share, precision)
        top1, _ = (100 * processes.sum(wrong) / len(data.test)).tolist()
        run.log(rate=rate, loss=loss, train_error=100 * train_error, top1_error=top1)
        at.sums.zero_()

    return Trained(weights={**copied(model), MEAN: mean.cpu()}, split=data.split_hash())


@torch.no_grad()
def mistakes_on(
    model: nn.Module,
    part: Part,
    recipe: ImageNetRecipe,
    mean: Tensor,
    share: slice = slice(None),
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """How many pictures of a share of them are classified wrongly from their middle: by the first guess, and by each of
    the first five.

    Args:
        mean: the mean colour, (3,), on the model's device.

    Returns:
        (2,), int64, on the model's device.
    """
    device = mean.device.type
    numbers = torch.arange(len(part))[share].split(AT_ONCE)

    def squares(index: int) -> list[Crop]:
        return [centre(number, recipe.test_scale) for number in numbers[index].tolist()]

    decoded = Decoded(part.pictures, squares, len(numbers), recipe.test_scale, device, cores_to_decode(device))
    wrong = torch.zeros(2, dtype=torch.long, device=device)
    model.eval()
    for index, pixels in enumerate(decoded):
        crops = one_crop(pixels, recipe.side)[:, 0]
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            logits = model(as_input(crops, mean))
        wrong += mistakes(logits, part.labels[numbers[index]].to(device))
    return wrong
