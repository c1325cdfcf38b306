"""Measure GoogLeNet weights: on the test pictures of the flowers with one crop and ten, on ImageNet with 144 too.

bash reproduce.sh eval googlenet --weights FILE
python -m papers.googlenet.eval --weights FILE
"""

from collections.abc import Callable

import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from common.base.errors import UsageError
from common.base.metrics import error_percent
from common.data.flowers import load, split
from common.data.imagenet import errors
from common.data.passports import LocatedData
from common.training.evaluation import Measured
from common.training.weights import fit_weights
from papers.googlenet import imagenet
from papers.googlenet.crops import PROTOCOLS
from papers.googlenet.imagenet import ImageNetRecipe
from papers.googlenet.model import GoogLeNet
from papers.googlenet.sgd import as_input
from papers.googlenet.train import Recipe, classify, mean_colour

MEASURED = (1, 10)  # crops of a flower


def evaluate(weights: dict[str, Tensor], recipe: Recipe | ImageNetRecipe, data: LocatedData, device: str) -> Measured:
    """Measure on what the recipe is for.

    Raises:
        UsageError: the weights are another model's.
    """
    measure = evaluate_on_imagenet if isinstance(recipe, ImageNetRecipe) else evaluate_on_flowers
    return measure(weights, recipe, data, device)


def evaluate_on_imagenet(
    weights: dict[str, Tensor], recipe: ImageNetRecipe, data: LocatedData, device: str
) -> Measured:
    """Top-1 and top-5 error in float32 with each number of crops, the mean over the recipe's networks.

    Raises:
        UsageError: the weights are another model's, those of another number of networks, or without a mean colour.
    """
    pictures = imagenet.load(data)
    networks, mean = (part.to(device) for part in imagenet_networks(weights, recipe, pictures.classes))
    metrics = {}
    for crops in recipe.crops:
        wrong = imagenet.mistakes_on(networks, pictures.test, recipe, mean, crops)
        metrics[f"{crops}-crop"] = errors(wrong, len(pictures.test), pictures.classes)
    return Measured(metrics)


def imagenet_networks(weights: dict[str, Tensor], recipe: ImageNetRecipe, classes: int) -> tuple[nn.ModuleList, Tensor]:
    """The networks with these weights, and the mean colour, (3, 1, 1), that came with them.

    Raises:
        UsageError: the weights are another model's, those of another number of networks, or without a mean colour.
    """
    weights = dict(weights)
    mean = weights.pop(imagenet.MEAN, None)
    networks = nn.ModuleList(network(classes, recipe) for _ in range(recipe.networks))
    fit_weights(networks, weights)
    if mean is None:
        raise UsageError(f"These weights lack {imagenet.MEAN!r}: it is not known what was subtracted in training.")
    return networks, mean


def network(classes: int, recipe: Recipe | ImageNetRecipe) -> GoogLeNet:
    """As it is tested, without heads."""
    return GoogLeNet(classes, recipe.network, heads=False, side=recipe.side)


def evaluate_on_flowers(weights: dict[str, Tensor], recipe: Recipe, data: LocatedData, device: str) -> Measured:
    """Error on the test pictures with one crop and with ten, in float32, and on the training pictures with one; and
    which class was taken for which with ten.

    Where the recipe holds pictures out of the training part, they take the test pictures' place.

    Raises:
        UsageError: the weights are another model's.
    """
    flowers = load(data)
    parts = split(flowers, recipe.held_out)
    trained, tested = ([flowers.pictures[number] for number in part] for part in (parts.train, parts.test))
    mean = mean_colour(trained).to(device)
    model = network(len(flowers.classes), recipe)
    fit_weights(model, weights)
    model.to(device)

    def predicted(pictures: list[Tensor], crops: int) -> Tensor:
        return classify(model, pictures, mean, recipe, PROTOCOLS[crops]).argmax(1)

    labels = flowers.labels[parts.test]
    by_crops = {crops: predicted(tested, crops) for crops in MEASURED}
    metrics = {f"{crops}-crop": {"test_error": error_percent(found, labels)} for crops, found in by_crops.items()}
    metrics["1-crop"]["train_error"] = error_percent(predicted(trained, 1), flowers.labels[parts.train])
    matrix = confusion_matrix(labels, by_crops[10], labels=range(len(flowers.classes)))
    return Measured(metrics, details={"classes": list(flowers.classes), "confusion_matrix": matrix.tolist()})


class Classifier(nn.Module):
    """Trained networks that take pictures as they are."""

    def __init__(self, networks: nn.ModuleList, mean: Tensor, recipe: Recipe | ImageNetRecipe):
        super().__init__()
        self.networks, self.recipe = networks, recipe
        self.register_buffer("mean", mean)

    def forward(self, images: Tensor) -> Tensor:
        """Crops (N, 3, H, W), uint8, such as those of 224x224 of ImageNet, to probabilities (N, classes): the mean of
        the networks'."""
        seen = as_input(images, self.mean, self.recipe)
        return torch.stack([network(seen).softmax(1) for network in self.networks]).mean(0)


def predictor(
    weights: dict[str, Tensor], recipe: Recipe | ImageNetRecipe, training_data: Callable[[], LocatedData]
) -> Classifier:
    """The networks with these weights, for `load_pretrained`. The flowers' mean colour comes from the training data.

    Raises:
        UsageError: the weights are another model's. DataError: the flowers are unavailable.
    """
    if isinstance(recipe, ImageNetRecipe):
        return Classifier(*imagenet_networks(weights, recipe, len(weights["0.linear.bias"])), recipe)
    flowers = load(training_data())
    model = network(len(flowers.classes), recipe)
    fit_weights(model, weights)
    trained = [flowers.pictures[number] for number in split(flowers, recipe.held_out).train]
    return Classifier(nn.ModuleList([model]), mean_colour(trained), recipe)


if __name__ == "__main__":
    from common.cli.commands import eval_paper_module

    eval_paper_module(__file__)
