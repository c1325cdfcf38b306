"""Measure a line on the test points.

bash reproduce.sh eval toy
python -m papers.toy.eval --weights FILE
"""

from papers.toy.data import load
from papers.toy.model import Line
from papers.toy.train import Recipe
from torch import Tensor

from common.base.metrics import error_percent
from common.data.passports import LocatedData
from common.training.evaluation import Measured
from common.training.weights import fit_weights


def evaluate(weights: dict[str, Tensor], recipe: Recipe, data: LocatedData, device: str) -> Measured:
    """
    Raises:
        UsageError: the weights are another model's.
    """
    clouds = load(data)
    model = Line()
    fit_weights(model, weights)
    predicted = model(clouds.test_points).argmax(dim=1)
    return Measured({"last": {"test_error": error_percent(predicted.numpy(), clouds.test_labels.numpy())}})


if __name__ == "__main__":
    from common.cli.commands import eval_paper_module

    eval_paper_module(__file__)
