"""Measure the weights of networks with and without SE blocks: on the test and the training set of CIFAR-10, or with one
crop on ImageNet.

bash reproduce.sh eval senet --weights FILE
python -m papers.senet.eval --weights FILE
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from common.base.errors import UsageError
from common.base.metrics import error_percent
from common.data.cifar10 import CLASSES, hold_out, load, on_device
from common.data.imagenet import errors
from common.data.imagenet import load as load_imagenet
from common.data.passports import LocatedData
from common.training.evaluation import Measured
from common.training.weights import fit_weights
from papers.senet import imagenet
from papers.senet.data import Standard
from papers.senet.imagenet import ImageNetRecipe
from papers.senet.model import SqueezeExcitation
from papers.senet.train import IMAGES_AT_ONCE, STANDARDS, Recipe, build_model, classify


def evaluate(weights: dict[str, Tensor], recipe: Recipe | ImageNetRecipe, data: LocatedData, device: str) -> Measured:
    """Measure on what the recipe is for.

    Raises:
        UsageError: the weights are another model's.
    """
    measure = evaluate_on_imagenet if isinstance(recipe, ImageNetRecipe) else evaluate_on_cifar
    return measure(weights, recipe, data, device)


def evaluate_on_imagenet(
    weights: dict[str, Tensor], recipe: ImageNetRecipe, data: LocatedData, device: str
) -> Measured:
    """Top-1 and top-5 error in float32, of the middle of each picture.

    Raises:
        UsageError: the weights are another model's.
    """
    pictures = load_imagenet(data)
    model, mean = imagenet_network(weights, recipe, pictures.classes)
    wrong = imagenet.mistakes_on(model.to(device), pictures.test, recipe, mean.to(device))
    return Measured({"single-crop": errors(wrong, len(pictures.test), pictures.classes)})


def imagenet_network(weights: dict[str, Tensor], recipe: ImageNetRecipe, classes: int) -> tuple[nn.Module, Tensor]:
    """The network with these weights, and the mean colour, (3,), that came with them.

    Raises:
        UsageError: the weights are another model's, or come without a mean colour.
    """
    weights = dict(weights)
    mean = weights.pop(imagenet.MEAN, None)
    model = imagenet.build_model(recipe, classes)
    fit_weights(model, weights)
    if mean is None:
        raise UsageError(f"These weights lack {imagenet.MEAN!r}: it is not known what was subtracted in training.")
    return model, mean


def evaluate_on_cifar(weights: dict[str, Tensor], recipe: Recipe, data: LocatedData, device: str) -> Measured:
    """Error on the test and the training set in float32, each picture seen once, in the middle; which class was
    taken for which; and how far the gates of each block depend on the class (Sec. 7.2).

    Where the recipe holds pictures out of the training set, they take the test set's place.

    Raises:
        UsageError: the weights are another model's.
    """
    cifar = hold_out(load(data), recipe.held_out)
    train_images, test_images = (on_device(images, device) for images in (cifar.train_images, cifar.test_images))
    standard = STANDARDS[recipe.standardisation](train_images)
    model = build_model(recipe)
    fit_weights(model, weights)
    model.to(device)
    predicted = classify(model, test_images, standard)
    trained = classify(model, train_images, standard)
    gates = gates_by_class(model, test_images, cifar.test_labels, standard)
    return Measured(
        metrics={
            "last": {
                "test_error": error_percent(predicted, cifar.test_labels),
                "train_error": error_percent(trained, cifar.train_labels),
            }
        },
        details={
            "confusion_matrix": confusion_matrix(cifar.test_labels, predicted, labels=range(CLASSES)).tolist(),
            "gates": [of_block.summary() for of_block in gates],
        },
    )


class Classifier(nn.Module):
    """A trained network that takes pictures as they are."""

    def __init__(self, network: nn.Module, standard: Standard):
        super().__init__()
        self.network = network
        self.register_buffer("mean", standard.mean)
        self.register_buffer("deviation", standard.deviation)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures of CIFAR-10 (N, 3, 32, 32), or crops of larger ones such as (N, 3, 224, 224), uint8, to logits
        (N, classes)."""
        return self.network(Standard(self.mean, self.deviation)(images))


def predictor(
    weights: dict[str, Tensor], recipe: Recipe | ImageNetRecipe, training_data: Callable[[], LocatedData]
) -> Classifier:
    """The network with these weights, for `load_pretrained`. What CIFAR-10 is standardised by comes from the training
    data.

    Raises:
        UsageError: the weights are another model's. DataError: CIFAR-10 is unavailable.
    """
    if isinstance(recipe, ImageNetRecipe):
        model, mean = imagenet_network(weights, recipe, classes=len(weights["fc.bias"]))
        return Classifier(model, Standard(mean[:, None, None], None))
    model = build_model(recipe)
    fit_weights(model, weights)
    train_images = hold_out(load(training_data()), recipe.held_out).train_images
    return Classifier(model, STANDARDS[recipe.standardisation](train_images))


@dataclass(frozen=True)
class Gates:
    """The gates of a block, s in Eqn. 3: of each of its C maps, the mean and the standard deviation over the pictures
    of each class that has any. Both are (classes, C), float64, on the CPU."""

    mean: Tensor
    deviation: Tensor

    def summary(self) -> list[float]:
        """The mean gate; the standard deviation from class to class of a class's mean; and that from picture to picture
        within a class. Both deviations are root mean squares over the maps."""
        between = self.mean.var(0, correction=0).mean().sqrt()
        within = self.deviation.square().mean().sqrt()
        return [self.mean.mean().item(), between.item(), within.item()]


@torch.no_grad()
def gates_by_class(
    model: nn.Module, images: Tensor, labels: Tensor, standard: Callable[[Tensor], Tensor]
) -> list[Gates]:
    """What Figs. 6 and 7 show, of all blocks in their order in the network; none in a plain network.

    Args:
        images: (N, 3, 32, 32), uint8, on the model's device.
        labels: (N,), on the CPU.
        standard: from pictures to what the network takes.
    """
    blocks = [module for module in model.modules() if isinstance(module, SqueezeExcitation)]
    moments: list[list[Tensor]] = [[] for _ in blocks]  # of each part: sums by class of the gates and their squares
    belongs: Tensor  # (classes, n): 1 where a picture of the part is of the class

    def measure(number: int, block: SqueezeExcitation, inputs: tuple[Tensor]) -> None:
        gates = block.gate(*inputs).double()
        moments[number].append(torch.stack([belongs @ gates, belongs @ gates.square()]))

    hooks = [block.register_forward_pre_hook(partial(measure, number)) for number, block in enumerate(blocks)]
    model.eval()
    for part, of in zip(images.split(IMAGES_AT_ONCE), labels.to(images.device).split(IMAGES_AT_ONCE), strict=True):
        belongs = F.one_hot(of, CLASSES).T.double()
        model(standard(part))
    for hook in hooks:
        hook.remove()
    counts = labels.bincount(minlength=CLASSES)
    some = counts > 0
    means = [torch.stack(of_block).sum(0).cpu()[:, some] / counts[some, None] for of_block in moments]
    return [Gates(first, (second - first**2).clamp(min=0).sqrt()) for first, second in means]


if __name__ == "__main__":
    from common.cli.commands import eval_paper_module

    eval_paper_module(__file__)
