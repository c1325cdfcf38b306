"""GoogLeNet on ImageNet, on one device or on many: one network, and the ensemble of seven (Table 3); and torchvision's
network of the name, which is another one.

bash reproduce.sh googlenet --variant imagenet --nproc 8
bash reproduce.sh googlenet --variant imagenet-ensemble --nproc 8
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common.base.errors import UsageError
from common.data.colours import colours_of, light
from common.data.decoding import Decoded, cores_to_decode
from common.data.imagenet import Part, load, mistakes
from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.steps import gradient_of, put_gradient
from common.training.weights import copied
from common.training.winograd import use_winograd
from papers.googlenet.crops import CROPS_AT_ONCE, PROTOCOLS, CropsOf
from papers.googlenet.model import SIDE, GoogLeNet, Initial, NetworkName, check_side, initialise, without_heads
from papers.googlenet.sampling import Patch, patches_of, photometric
from papers.googlenet.sgd import as_input, learning_rate, losses

MEAN = "mean_colour"  # what was subtracted in training, kept with the weights

Crops = Literal[1, 10, 144]


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class ImageNetRecipe:
    """Everything that makes the numbers. 'Open' marks what the paper does not say."""

    network: NetworkName = "paper"  # Table 1; the others, of `NETWORKS`, are not the paper's
    networks: Annotated[int, Field(ge=1)] = 1  # trained one after the other from the same weights (Sec. 7)
    head_weight: Annotated[float, Field(ge=0)] = 0.3  # of each head's loss (Sec. 5)
    side: int = SIDE  # of what the network sees, in pixels (Sec. 5)
    distortion: Annotated[float, Field(ge=0, lt=1)] = 0.5  # of brightness, contrast and colour (Sec. 6: Howard's)
    grey_level: Annotated[float, Field(gt=0)] = 1.0  # open: what one of 255 is worth to the network
    initial_weights: Initial = "xavier"  # open: how they are drawn
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 120  # open: passes over the training pictures, of each network
    batch_size: Annotated[int, Field(ge=1)] = 256  # open; what is left over of an epoch's order is left out
    group: Annotated[int, Field(ge=1)] = 32  # pictures that go through the network at once; ours, for memory
    learning_rate: Annotated[float, Field(gt=0)] = 0.03  # open: of the first epoch
    decay: Annotated[float, Field(gt=0, le=1)] = 0.96  # of the rate, all `decay_epochs` (Sec. 6: by 4 %)
    decay_epochs: Annotated[int, Field(ge=1)] = 8  # Sec. 6
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # Sec. 6
    weight_decay: Annotated[float, Field(ge=0)] = 0.0002  # open: not in the paper
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.9999  # Polyak averaging (Sec. 6); open: the mean's share
    crops: tuple[Crops, ...] = (1, 10, 144)  # of a picture, with which the weights are tested at the end (Table 3)
    precision: Literal["fast", "float32"] = "fast"  # of the products; weights and loss are float32; ours

    def __post_init__(self) -> None:
        check_side(self.side)


VARIANTS = {
    "imagenet": ImageNetRecipe(),
    "imagenet-ensemble": ImageNetRecipe(networks=7),
    "imagenet-torchvision": ImageNetRecipe("torchvision"),
}


def recipe(variant: str, preset: str, standin: bool) -> ImageNetRecipe:
    """The recipe of a variant under a preset; with the stand-in it is shorter, and its pictures smaller, whatever the
    preset. What is short is averaged over less."""
    full = VARIANTS[variant]
    short = replace(full, networks=min(full.networks, 2), epochs=1, averaging=0.99)
    if preset == "smoke" or standin:
        return replace(short, side=80, epochs=2, batch_size=16, group=8, averaging=0.9, crops=(1, 10))
    return {"full": full, "quick": short}[preset]


@dataclass
class At:
    """What changes in training besides the network, its average and the optimiser."""

    sums: Tensor  # of the loss and of the mistakes of the classifier itself, over the epoch, as the pictures come
    trained: dict[str, Tensor]  # the weights of the networks that are done


def train(run: Run, recipe: ImageNetRecipe) -> Trained:
    """Stochastic gradient descent over patches of the training pictures (Sec. 6), for one network after the other.

    They begin with the same weights and differ in the order of the pictures and in what is drawn for them (Sec. 7). A
    batch is made of groups. Every process takes its share of them, one after the other, and the gradients are added up;
    so what is learnt does not depend, but for rounding, on how many processes there are.

    Raises:
        UsageError: the groups of a batch cannot be shared out evenly, or there are fewer pictures than in a batch.
    """
    data, processes, share = load(run.data), run.processes, run.processes.share
    count, batch_size, group = len(data.train), recipe.batch_size, recipe.group
    if count < batch_size:
        raise UsageError(f"--batch-size {batch_size}: there are {count} pictures to train on.")
    mine = (processes.groups_of(batch_size, group)[::group] // group).tolist()  # the numbers of its groups
    groups, iterations = batch_size // group, count // batch_size
    workers = cores_to_decode(run.device)
    looked = colours_of(data.train.pictures, recipe.side, workers) if processes.first else None
    colours = processes.from_first(looked).on(run.device)
    mean = colours.mean[:, None, None]

    model = GoogLeNet(data.classes, recipe.network, side=recipe.side).to(run.device)
    precision = run.choose_precision(recipe.precision)
    run.note_compiled(use_winograd(model, precision))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging), use_buffers=True)
    constants = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    optimiser = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, fused=True, **constants)

    def drawn(purpose: str, epoch: int, index: int, one: int) -> torch.Generator:
        """For a group of a batch."""
        return generator(run.seed, purpose, epoch, index * groups + one)

    def patches(epoch: int, batches: Sequence[Tensor], index: int) -> list[Patch]:
        numbers = batches[index].split(group)
        return [patch for one in mine for patch in patches_of(numbers[one], drawn("patches", epoch, index, one))]

    at = At(torch.zeros(2, dtype=torch.float64, device=run.device), trained={})
    run.resume(at, model=model, average=average, optimiser=optimiser)
    for epoch in run.epochs(recipe.networks * recipe.epochs, samples=iterations * batch_size):
        network, passes = divmod(epoch, recipe.epochs)
        if passes == 0 and run.at_epoch_start:
            initialise(model, generator(run.seed, "initial weights"), recipe.initial_weights)
            average.n_averaged.zero_()  # the first weights that come replace it
            optimiser.state.clear()
        order = torch.randperm(count, generator=generator(run.seed, "order", epoch))
        batches = order.split(batch_size)[:iterations]
        optimiser.param_groups[0]["lr"] = rate = learning_rate(recipe, passes)
        model.train()

        cut = partial(patches, epoch, batches)
        decoded = Decoded(data.train.pictures, cut, iterations, recipe.side, run.device, workers)
        for index, pixels in run.steps(decoded):
            labels = data.train.labels[batches[index]].to(run.device).split(group)
            sums = 0
            optimiser.zero_grad()
            for one, part in zip(mine, pixels.split(group), strict=True):
                draw, dropped = (drawn(purpose, epoch, index, one) for purpose in ("colours", "dropout"))
                distorted = photometric(part.float(), recipe.distortion, draw)
                distorted += (light(group, draw).to(run.device) @ colours.axes)[:, :, None, None]
                seen = as_input(distorted, mean, recipe)
                logits, loss, of_heads = losses(model, seen, labels[one], dropped, precision)
                ((loss + recipe.head_weight * of_heads) / groups).backward()
                wrong = (logits.argmax(1) != labels[one]).sum()
                sums = sums + torch.stack([loss.detach().double() * group, wrong.double()])
            if processes.count > 1:
                put_gradient(model, processes.sum(gradient_of(model)))
            optimiser.step()
            average.update_parameters(model)
            at.sums += processes.sum(sums)
            run.advance(batch_size)

        loss, train_error = (at.sums / (iterations * batch_size)).tolist()
        run.require_finite(loss, f"the loss in epoch {epoch + 1}")
        processes.copy_first(average.module.buffers())  # the moments of batch normalization are those of its groups
        wrong = mistakes_on([average.module], data.test, recipe, mean, 1, share, precision)
        top1, _ = (100 * processes.sum(wrong) / len(data.test)).tolist()
        run.log(network=network + 1, rate=rate, loss=loss, train_error=100 * train_error, top1_error=top1)
        at.sums.zero_()
        if passes == recipe.epochs - 1:
            at.trained |= numbered([without_heads(copied(average.module))], network)

    return Trained(weights={**at.trained, MEAN: mean.cpu()}, split=data.split_hash())


def numbered(networks: Iterable[dict[str, Tensor]], first: int = 0) -> dict[str, Tensor]:
    """The weights of several networks as those of one `nn.ModuleList`."""
    return {f"{n}.{name}": tensor for n, network in enumerate(networks, first) for name, tensor in network.items()}


@torch.inference_mode()
def mistakes_on(
    networks: Sequence[nn.Module],
    part: Part,
    recipe: ImageNetRecipe,
    mean: Tensor,
    crops: Crops,
    share: slice = slice(None),
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """How many pictures of a share of them are classified wrongly: by the first guess, and by each of the first five.

    The softmax probabilities are averaged over the crops of a picture and over the networks (Sec. 7).

    Args:
        mean: the mean colour, (3, 1, 1), on the networks' device.

    Returns:
        (2,), int64, on that device.
    """
    device = mean.device.type
    at_once = CROPS_AT_ONCE[device]
    numbers = torch.arange(len(part))[share].split(max(1, at_once // len(PROTOCOLS[crops])))

    def pieces(index: int) -> list[CropsOf]:
        return [CropsOf(number, crops) for number in numbers[index].tolist()]

    def said(seen: Tensor) -> Tensor:
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            return torch.stack([network(seen).double().softmax(1) for network in networks]).mean(0)

    for network in networks:
        network.eval()
    wrong = torch.zeros(2, dtype=torch.long, device=device)
    decoded = Decoded(part.pictures, pieces, len(numbers), recipe.side, device, cores_to_decode(device))
    for index, pixels in enumerate(decoded):
        by_crop = torch.cat([said(as_input(some, mean, recipe)) for some in pixels.flatten(0, 1).split(at_once)])
        probabilities = by_crop.view(*pixels.shape[:2], -1).mean(1)
        wrong += mistakes(probabilities, part.labels[numbers[index]].to(device))
    return wrong
