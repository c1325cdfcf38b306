"""Measure LeNet-5 weights on the test and the training set.

bash reproduce.sh eval lenet5_1998
python -m papers.lenet5_1998.eval --weights FILE
"""

from collections.abc import Callable

from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from common.base.metrics import error_percent
from common.data.passports import LocatedData
from common.training.evaluation import Measured
from common.training.weights import fit_weights
from papers.lenet5_1998.data import as_patterns, load
from papers.lenet5_1998.model import CLASSES, LeNet5
from papers.lenet5_1998.train import Recipe, build_model, classify, hold_out


def evaluate(weights: dict[str, Tensor], recipe: Recipe, data: LocatedData, device: str) -> Measured:
    """Error on the test and the training set, and which test digit was taken for which.

    Where the recipe holds patterns out of the training set, they take the test set's place.

    Raises:
        UsageError: the weights belong to another model.
    """
    digits = hold_out(load(data), recipe)
    model = build_model(recipe)
    fit_weights(model, weights)
    predicted, label = classify(model, digits.test_images, recipe).numpy(), digits.test_labels.numpy()
    trained = classify(model, digits.train_images, recipe).numpy()
    wrong = (predicted != label).nonzero()[0]
    return Measured(
        metrics={
            "last": {
                "test_error": error_percent(predicted, label),
                "train_error": error_percent(trained, digits.train_labels.numpy()),
            }
        },
        details={
            "confusion_matrix": confusion_matrix(label, predicted, labels=range(CLASSES)).tolist(),
            "misclassified": [[int(i), int(label[i]), int(predicted[i])] for i in wrong],
        },
    )


class Classifier(nn.Module):
    """A trained network that takes digits as MNIST has them."""

    def __init__(self, network: LeNet5, padding: str):
        super().__init__()
        self.network = network
        self.padding = padding

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 28, 28), uint8, 0 the background, to penalties (N, 10): the smallest is that of the class."""
        return self.network(as_patterns(images, self.padding)[:, None])


def predictor(weights: dict[str, Tensor], recipe: Recipe, training_data: Callable[[], LocatedData]) -> Classifier:
    """The network with these weights, for `load_pretrained`.

    Raises:
        UsageError: the weights belong to another model.
    """
    model = build_model(recipe)
    fit_weights(model, weights)
    return Classifier(model, recipe.padding)


if __name__ == "__main__":
    from common.cli.commands import eval_paper_module

    eval_paper_module(__file__)
