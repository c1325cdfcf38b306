"""Measure GoogLeNet weights on the test pictures of the flowers.

bash reproduce.sh eval googlenet --weights FILE
python -m papers.googlenet.eval --weights FILE
"""

from sklearn.metrics import confusion_matrix
from torch import Tensor

from common.base.metrics import error_percent
from common.data.flowers import load, split
from common.data.passports import LocatedData
from common.training.evaluation import Measured
from common.training.weights import fit_weights
from papers.googlenet.crops import PROTOCOLS
from papers.googlenet.model import GoogLeNet
from papers.googlenet.train import Recipe, classify, mean_colour

MEASURED = (1, 10)  # crops


def evaluate(weights: dict[str, Tensor], recipe: Recipe, data: LocatedData, device: str) -> Measured:
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
    model = GoogLeNet(len(flowers.classes), recipe.network, heads=False, side=recipe.side)
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


if __name__ == "__main__":
    from common.cli.commands import eval_paper_module

    eval_paper_module(__file__)
