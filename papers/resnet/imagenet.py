"""ResNet on ImageNet, trained as printed (Sec. 3.4), on one device or on many; and on photographs of flowers, where
anybody can see the same loop learn.

    bash reproduce.sh resnet --variant imagenet-resnet50 --nproc 8
    bash reproduce.sh resnet --variant flowers-resnet18
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Annotated, Literal

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn

from common.base.errors import UsageError
from common.data import flowers, imagenet
from common.data.colours import Colours, colours_of
from common.data.decoding import Crop, Decoded, Whole, centre, cores_to_decode, of_one_shape, one_crop, ten_crops
from common.data.imagenet import ImageNet, Part, mistakes
from common.data.jitter import Views, as_input, draw_views
from common.data.passports import LocatedData
from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.steps import fast_step, gradient_of, put_gradient
from common.training.weights import copied
from common.training.winograd import use_winograd
from papers.resnet.loss import loss_and_mistakes
from papers.resnet.model import BOTTLENECK_FROM, ImageNetResNet, StrideAt, initialise

AT_ONCE = 50  # pictures, when nothing is learnt
CROPS = {"1-crop": one_crop, "10-crop": ten_crops}  # by protocol
MEAN = "mean_colour"  # what was subtracted in training, kept with the weights

Pixels = Annotated[int, Field(ge=1, le=10_000)]


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class ImageNetRecipe:
    """Everything that makes the numbers. 'Open' marks what the paper does not say."""

    depth: int = 18  # layers (Table 1)
    shortcuts: Literal["none", "A", "B", "C"] = "B"  # none in a plain network (Table 2); A, B and C in Table 3
    stride_at: StrideAt = "1x1"  # which convolution of a bottleneck has the stride (Table 1); 3x3: version 1.5
    iterations: Annotated[int, Field(ge=1)] = 600_000  # batches in all; Sec. 3.4: "up to 60 × 10^4"
    batch_size: Annotated[int, Field(ge=1)] = 256  # Sec. 3.4; what is left over of an epoch's order is left out
    group: Annotated[int, Field(ge=2)] = 32  # pictures that are normalised together; open: an eighth of a batch
    learning_rate: Annotated[float, Field(gt=0)] = 0.1  # Sec. 3.4; a tenth "when the error plateaus"
    patience: Annotated[int, Field(ge=1)] = 5  # open: epochs without an improvement that make a plateau
    improvement: Annotated[float, Field(ge=0)] = 0.5  # open: of the training error, in percentage points
    drops: Annotated[int, Field(ge=0)] = 3  # open: how often the rate becomes a tenth, at most
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # Sec. 3.4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0001  # Sec. 3.4; open: on all parameters
    scales: tuple[Pixels, Pixels] = (256, 480)  # between which a picture's shorter side is drawn (Sec. 3.4)
    side: Pixels = 224  # of the crop that the network sees (Sec. 3.4)
    test_scale: Pixels = 256  # shorter side for 1 and 10 crops; open: that of Krizhevsky et al., whose test it is
    test_scales: tuple[Pixels, ...] = (224, 256, 384, 480, 640)  # shorter sides for whole pictures (Sec. 3.4)
    precision: Literal["fast", "float32"] = "fast"  # of the products; weights, statistics and loss are float32; ours

    def __post_init__(self) -> None:
        for option, shorter in (("scales", min(self.scales)), ("test-scale", self.test_scale)):
            if self.side > shorter:
                raise UsageError(f"--side {self.side}: larger than the {shorter} pixels of --{option}.")


VARIANTS = {f"imagenet-plain{depth}": ImageNetRecipe(depth, "none") for depth in (18, 34)}
VARIANTS |= {"imagenet-resnet18-A": ImageNetRecipe(18, "A"), "imagenet-resnet18-B": ImageNetRecipe(18, "B")}
VARIANTS |= {f"imagenet-resnet34-{option}": ImageNetRecipe(34, option) for option in ("A", "B", "C")}
VARIANTS |= {f"imagenet-resnet{depth}": ImageNetRecipe(depth) for depth in (50, 101, 152)}
VARIANTS |= {f"imagenet-resnet{depth}-v1.5": ImageNetRecipe(depth, stride_at="3x3") for depth in (50, 101, 152)}
# Half as large, for so are the pictures: 750 to train on, whose shorter side has 128 pixels.
VARIANTS["flowers-resnet18"] = ImageNetRecipe(
    18, "B", iterations=1100, batch_size=64, patience=10, scales=(128, 240), side=112,
    test_scale=128, test_scales=(112, 128, 192, 240, 320),
)  # fmt: skip


def recipe(variant: str, preset: str, standin: bool) -> ImageNetRecipe:
    """The recipe of a variant under a preset; with the stand-in it is shorter, and its pictures smaller, whatever the
    preset."""
    full = VARIANTS[variant]
    if preset == "smoke" or standin:
        depth = (18 if full.depth < BOTTLENECK_FROM else BOTTLENECK_FROM) if preset == "smoke" else full.depth
        small = replace(full, batch_size=16, group=8, scales=(64, 120), side=56, test_scale=64)
        small = replace(small, test_scales=(56, 64, 96, 120, 160))
        return replace(small, depth=depth, iterations=10, patience=1)
    iterations = {"full": full.iterations, "quick": min(5000, full.iterations // 5)}[preset]
    return replace(full, iterations=iterations)


def drops(errors: Sequence[float], recipe: ImageNetRecipe) -> int:
    """How often the rate has become a tenth after epochs with these training errors: whenever the best error of the
    last `patience` epochs is not better, by `improvement`, than the best one before them at this rate."""
    done = begin = 0
    for end in range(1, len(errors) + 1):
        recent = end - recipe.patience
        if recent > begin and min(errors[begin:recent]) - min(errors[recent:end]) < recipe.improvement:
            done, begin = done + 1, end
    return min(done, recipe.drops)


def learning_rate(recipe: ImageNetRecipe, errors: Sequence[float]) -> float:
    """The rate of an epoch, from the training errors of those before it."""
    return recipe.learning_rate / 10 ** drops(errors, recipe)


def load(data: LocatedData) -> ImageNet:
    """ImageNet, or the flowers in its form."""
    if data.dataset != "flowers":
        return imagenet.load(data)
    pictures = flowers.load(data)
    split = flowers.split(pictures)
    train, test = (
        Part([pictures.names[n] for n in part], pictures.labels[part], [pictures.pictures[n] for n in part])
        for part in (split.train, split.test)
    )
    return ImageNet(train, test, len(pictures.classes))


def build_model(recipe: ImageNetRecipe, classes: int) -> ImageNetResNet:
    return ImageNetResNet(recipe.depth, recipe.shortcuts, recipe.stride_at, classes)


@dataclass
class At:
    """What changes in training besides the network and the optimiser."""

    sums: Tensor  # of the loss and of the mistakes, over the epoch, as the pictures come


def train(run: Run, recipe: ImageNetRecipe) -> Trained:
    """So many iterations of stochastic gradient descent (Sec. 3.4).

    A batch is made of groups, each normalised by itself. Every process takes its share of them, one after the other,
    and the gradients are added up; so what is learnt does not depend, but for rounding, on how many
    processes there are.

    Raises:
        UsageError: the groups of a batch cannot be shared out evenly, or there are fewer pictures than in a batch.
    """
    data, processes, share = load(run.data), run.processes, run.processes.share
    count, batch_size, group = len(data.train), recipe.batch_size, recipe.group
    if count < batch_size:
        raise UsageError(f"--batch-size {batch_size}: there are {count} pictures to train on.")
    mine = processes.groups_of(batch_size, group)
    iterations_per_epoch = count // batch_size
    workers = cores_to_decode(run.device)
    looked = colours_of(data.train.pictures, recipe.test_scale, workers) if processes.first else None
    colours = processes.from_first(looked).on(run.device)

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

    def views(epoch: int, index: int) -> Views:
        return draw_views(batch_size, recipe.scales, generator(run.seed, "views", epoch, index))[mine]

    def crops(epoch: int, batches: Sequence[Tensor], index: int) -> list[Crop]:
        return views(epoch, index).crops(batches[index][mine])

    at = At(torch.zeros(2, dtype=torch.float64, device=run.device))
    run.resume(at, model=model, optimiser=optimiser)
    for epoch in run.epochs(-(-recipe.iterations // iterations_per_epoch), samples=iterations_per_epoch * batch_size):
        first = epoch * iterations_per_epoch
        order = torch.randperm(count, generator=generator(run.seed, "order", epoch))
        batches = order.split(batch_size)[: min(iterations_per_epoch, recipe.iterations - first)]
        cut = partial(crops, epoch, batches)
        decoded = Decoded(data.train.pictures, cut, len(batches), recipe.side, run.device, workers)
        rate = learning_rate(recipe, run.curves.get("train_error", []))
        optimiser.param_groups[0]["lr"] = rate
        model.train()
        for index, pixels in run.steps(decoded):
            seen, labels = as_input(pixels, colours, views(epoch, index)), data.train.labels[batches[index][mine]]
            gradient, sums = 0, 0
            for part, label in zip(seen.split(group), labels.to(run.device).split(group), strict=True):
                loss, mistakes = step(part, label)
                gradient = gradient + gradient_of(model) * (group / batch_size)
                sums = sums + torch.stack([loss.double() * group, mistakes.double()])
            put_gradient(model, processes.sum(gradient))
            optimiser.step()
            at.sums += processes.sum(sums)
            run.advance(batch_size)

        loss, train_error = (at.sums / (len(batches) * batch_size)).tolist()
        run.require_finite(loss, f"the loss in epoch {epoch + 1}")
        processes.copy_first(model.buffers())  # the moments that a test uses are those of its groups
        wrong = mistakes_on(model, data.test, recipe, colours.mean, ["1-crop"], share, precision)["1-crop"]
        top1, _ = (100 * processes.sum(wrong) / len(data.test)).tolist()
        run.log(iteration=first + len(batches), rate=rate, loss=loss, train_error=100 * train_error, top1_error=top1)
        at.sums.zero_()

    return Trained(weights={**copied(model), MEAN: colours.mean.cpu()}, split=data.split_hash())


@torch.no_grad()
def mistakes_on(
    model: nn.Module,
    part: Part,
    recipe: ImageNetRecipe,
    mean: Tensor,
    protocols: Sequence[str],
    share: slice = slice(None),
    precision: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """How many pictures of a share of them are classified wrongly: by the first guess, and by each of the first five.

    Args:
        mean: the mean colour, (3,), on the model's device.
        protocols: how many crops, as `CROPS` names them.

    Returns:
        For each protocol (2,), int64, on the model's device.
    """
    device = mean.device.type
    colours = Colours(mean, mean.new_zeros(3, 3))
    numbers = torch.arange(len(part))[share].split(AT_ONCE)
    wrong = {protocol: torch.zeros(2, dtype=torch.long, device=device) for protocol in protocols}

    def squares(index: int) -> list[Crop]:
        return [centre(number, recipe.test_scale) for number in numbers[index].tolist()]

    decoded = Decoded(part.pictures, squares, len(numbers), recipe.test_scale, device, cores_to_decode(device))
    model.eval()
    for index, pixels in enumerate(decoded):
        labels = part.labels[numbers[index]].to(device)
        for protocol in protocols:
            crops = CROPS[protocol](pixels, recipe.side)
            with torch.autocast(device, precision, enabled=precision != torch.float32):
                logits = model(as_input(crops.flatten(0, 1), colours))
            said = logits.double().softmax(1).view(*crops.shape[:2], -1).mean(1)
            wrong[protocol] += mistakes(said, labels)
    return wrong


@torch.no_grad()
def mistakes_at_scales(model: ImageNetResNet, part: Part, recipe: ImageNetRecipe, mean: Tensor) -> Tensor:
    """The same of whole pictures at several scales (Sec. 3.4): "we adopt the fully-convolutional form [...] and average
    the scores at multiple scales". A score is the softmax of the mean over the positions that the picture has.

    However large the pictures are, the network sees no more pixels at once than in `AT_ONCE` crops, or one picture.

    Returns:
        (2,), int64, on the model's device.
    """
    device = mean.device.type
    colours = Colours(mean, mean.new_zeros(3, 3))
    parts, scales = torch.arange(len(part)).split(AT_ONCE), recipe.test_scales
    views = [Whole(number, scale) for numbers in parts for scale in scales for number in numbers.tolist()]
    workers = cores_to_decode(device)
    decoded = iter(Decoded(part.pictures, lambda n: views[n : n + 1], len(views), recipe.side, device, workers))
    wrong = torch.zeros(2, dtype=torch.long, device=device)
    model.eval()
    for numbers in parts:
        said = torch.zeros(len(numbers), model.fc.out_features, dtype=torch.float64, device=device)
        for _ in scales:
            for places, pixels in of_one_shape(islice(decoded, len(numbers)), AT_ONCE * recipe.side**2):
                said[places] += model(as_input(pixels, colours)).double().softmax(1)
        wrong += mistakes(said, part.labels[numbers].to(device))
    return wrong
