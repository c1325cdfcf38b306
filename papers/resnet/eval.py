"""Measure ResNet weights: on the test and the training set of CIFAR-10; with crops and at several scales on ImageNet.

bash reproduce.sh eval resnet --weights FILE
python -m papers.resnet.eval --weights FILE
"""

from collections.abc import Callable

import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from common.base.errors import UsageError
from common.base.metrics import error_percent
from common.data.cifar10 import CLASSES, hold_out, load, on_device
from common.data.imagenet import errors
from common.data.passports import LocatedData
from common.training.evaluation import Measured
from common.training.weights import fit_weights
from papers.resnet import imagenet
from papers.resnet.data import mean_picture, subtract_mean
from papers.resnet.imagenet import ImageNetRecipe
from papers.resnet.model import CifarResNet, ImageNetResNet
from papers.resnet.train import IMAGES_AT_ONCE, Recipe, build_model, classify


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
    """Top-1 and top-5 error in float32, with one crop, with ten, and of whole pictures at several scales; where there
    are only five classes, top-1 alone.

    Raises:
        UsageError: the weights are another model's.
    """
    pictures = imagenet.load(data)
    model, mean = (part.to(device) for part in imagenet_network(weights, recipe, pictures.classes))
    wrong = imagenet.mistakes_on(model, pictures.test, recipe, mean, list(imagenet.CROPS))
    wrong["multi-scale"] = imagenet.mistakes_at_scales(model, pictures.test, recipe, mean)
    count = len(pictures.test)
    return Measured({protocol: errors(counts, count, pictures.classes) for protocol, counts in wrong.items()})


def imagenet_network(weights: dict[str, Tensor], recipe: ImageNetRecipe, classes: int) -> tuple[ImageNetResNet, Tensor]:
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
    taken for which; and the layer responses of Fig. 7.

    Where the recipe holds pictures out of the training set, they take the test set's place.

    Raises:
        UsageError: the weights are another model's.
    """
    cifar = hold_out(load(data), recipe.held_out)
    train_images, test_images = (on_device(images, device) for images in (cifar.train_images, cifar.test_images))
    mean = mean_picture(train_images)
    model = build_model(recipe)
    fit_weights(model, weights)
    model.to(device)
    predicted = classify(model, test_images, mean)
    trained = classify(model, train_images, mean)
    return Measured(
        metrics={
            "last": {
                "test_error": error_percent(predicted, cifar.test_labels),
                "train_error": error_percent(trained, cifar.train_labels),
            }
        },
        details={
            "confusion_matrix": confusion_matrix(cifar.test_labels, predicted, labels=range(CLASSES)).tolist(),
            "layer_responses": layer_responses(model, test_images, mean),
        },
    )


class Classifier(nn.Module):
    """A trained network that takes pictures as they are."""

    def __init__(self, network: nn.Module, mean: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures of CIFAR-10 (N, 3, 32, 32), or crops of larger ones such as (N, 3, 224, 224), uint8, to logits
        (N, classes)."""
        return self.network(subtract_mean(images, self.mean))


def predictor(
    weights: dict[str, Tensor], recipe: Recipe | ImageNetRecipe, training_data: Callable[[], LocatedData]
) -> Classifier:
    """The network with these weights, for `load_pretrained`. CIFAR-10's mean picture comes from the training data.

    Raises:
        UsageError: the weights are another model's. DataError: CIFAR-10 is unavailable.
    """
    if isinstance(recipe, ImageNetRecipe):
        model, mean = imagenet_network(weights, recipe, classes=len(weights["fc.bias"]))
        return Classifier(model, mean[:, None, None])
    model = build_model(recipe)
    fit_weights(model, weights)
    return Classifier(model, mean_picture(hold_out(load(training_data()), recipe.held_out).train_images))


@torch.no_grad()
def layer_responses(model: CifarResNet, images: Tensor, mean: Tensor) -> list[float]:
    """Fig. 7: the standard deviation, over all pictures, places and maps, of what each 3x3 layer gives after batch
    normalization and before the ReLU or the addition; in the order of the layers."""
    moments: list[Tensor] = []  # of each layer in each part: mean and mean square

    def measure(_layer: nn.Module, _inputs: tuple, outputs: Tensor) -> None:
        moments.append(torch.stack([outputs.mean(), outputs.square().mean()]).double())

    named = model.named_modules()  # a projection in a shortcut is no 3x3 layer
    layers = [module for name, module in named if isinstance(module, nn.BatchNorm2d) and "shortcut" not in name]
    hooks = [layer.register_forward_hook(measure) for layer in layers]
    parts = images.split(IMAGES_AT_ONCE)
    model.eval()
    for part in parts:
        model(subtract_mean(part, mean))
    for hook in hooks:
        hook.remove()
    share = torch.tensor([len(part) / len(images) for part in parts], dtype=torch.float64)
    first, second = torch.stack(moments).cpu().view(len(parts), len(layers), 2).mul(share[:, None, None]).sum(0).T
    return (second - first**2).sqrt().tolist()


if __name__ == "__main__":
    from common.cli.commands import eval_paper_module

    eval_paper_module(__file__)
