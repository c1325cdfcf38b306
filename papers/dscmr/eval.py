"""Measure DSCMR weights on the test pairs.

bash reproduce.sh eval dscmr --weights FILE
python -m papers.dscmr.eval --weights FILE
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.data.passports import LocatedData
from common.training.evaluation import Measured
from common.training.weights import fit_weights
from papers.dscmr.data import load
from papers.dscmr.model import DSCMR
from papers.dscmr.retrieval import both_ways, precision_at_k, precision_recall, scores
from papers.dscmr.train import Recipe, build_model


@torch.no_grad()
def evaluate(weights: dict[str, Tensor], recipe: Recipe, data: LocatedData, device: str) -> Measured:
    """mAP of the given weights, and the precision at each recall and at the first ranks.

    Computed in float64, so that the way a processor sums hardly ever decides a rank.

    Raises:
        UsageError: the weights belong to another model. DataError: as in `load`.
    """
    pairs = load(data)
    model = build_model(pairs)
    fit_weights(model, weights)
    U, V = model.double()(pairs.test.images.double(), pairs.test.texts.double())
    relevant = both_ways(U, V, pairs.test.labels)
    details = {}
    for way, found in relevant.items():
        details[f"precision_recall_{way}"] = precision_recall(found)
        details[f"precision_at_k_{way}"] = precision_at_k(found)
    return Measured(metrics={"last": scores(relevant)}, details=details)


def predictor(weights: dict[str, Tensor], recipe: Recipe, training_data: Callable[[], LocatedData]) -> DSCMR:
    """The network with these weights, for `load_pretrained`: it takes features of the kind that it was trained on.

    Raises:
        UsageError: the weights belong to another model.
    """
    model = DSCMR(weights["image.weight"].shape[1], weights["text.weight"].shape[1], len(weights["P.bias"]))
    fit_weights(model, weights)
    return model


if __name__ == "__main__":
    from common.cli.commands import eval_paper_module

    eval_paper_module(__file__)
