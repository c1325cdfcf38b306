"""DSCMR (Zhen, Hu, Wang, Peng, CVPR 2019), and the epoch it is scored at.

The paper reports the mean average precision of retrieval between pictures and texts; the authors'
code reports that of the epoch with the best score on the test set. Here every run is scored three
ways: at that epoch (`test-best`), at the best one on validation pairs (`val-best`), and at the last
(`last`). `Recipe` says field by field what is taken from the paper and what from the authors' code;
so does the page in README.md.

    bash reproduce.sh dscmr
    python -m papers.dscmr.train --seeds 0
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import pydantic.dataclasses
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.weights import copied
from papers.dscmr.backpropagation import Backpropagation
from papers.dscmr.data import Pairs, Part, load
from papers.dscmr.model import DSCMR, initialise
from papers.dscmr.retrieval import both_ways, scores
from papers.dscmr.tsne import tsne

DEVICES = ("cpu",)

Beta = Annotated[float, Field(ge=0, lt=1)]


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class Recipe:
    """Everything that makes the numbers. 'Code' marks what is taken from the authors' code."""

    lam: Annotated[float, Field(ge=0)] = 1e-3  # λ, the weight of J2 (code: alpha)
    eta: Annotated[float, Field(ge=0)] = 1e-1  # η, the weight of J3 (code: beta)
    norms: Literal["frobenius", "sample"] = "frobenius"  # of J1 and J3: over the batch (paper), or by sample (code)
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 500  # times through the training pairs (code)
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 100  # pairs in a batch (code)
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4  # Adam's rate (code)
    betas: tuple[Beta, Beta] = (0.5, 0.999)  # Adam's decay rates of both moments (code)
    order: Literal["file", "shuffled", "class"] = "file"  # of the pairs in an epoch (code: as in the files)
    precision: Literal["fast", "float32"] = "fast"  # ours: of the products in the branches and J2; all else is float32


FILE_ORDER, SHUFFLED, BLOCKED = Recipe(), Recipe(order="shuffled"), Recipe(order="class")
VARIANTS = {
    "wikipedia-file-order": FILE_ORDER,
    "wikipedia-shuffled": SHUFFLED,
    "wikipedia-blocked": BLOCKED,
    "wikipedia-file-order-sample-norms": replace(FILE_ORDER, norms="sample"),
    "wikipedia-shuffled-sample-norms": replace(SHUFFLED, norms="sample"),
    "wikipedia-blocked-sample-norms": replace(BLOCKED, norms="sample"),
    "wikipedia-shuffled-float32": replace(SHUFFLED, precision="float32"),
    "wikipedia-file-order-without-j2": replace(FILE_ORDER, lam=0.0),
    "wikipedia-file-order-without-j3": replace(FILE_ORDER, eta=0.0),
    "wikipedia-file-order-without-j2-j3": replace(FILE_ORDER, lam=0.0, eta=0.0),
    "pascal-blocked": FILE_ORDER,  # its files are in class order
    "pascal-shuffled": SHUFFLED,
    "pascal-blocked-sample-norms": replace(FILE_ORDER, norms="sample"),
    "nuswide10k-file-order": FILE_ORDER,
    "nuswide10k-shuffled": SHUFFLED,
    "nuswide10k-file-order-sample-norms": replace(FILE_ORDER, norms="sample"),
}


def recipe(variant: str, preset: str, standin: bool = False) -> Recipe:
    """The recipe of a variant under a preset. The stand-in is so small that it needs no shorter one."""
    epochs = {"full": 500, "quick": 50, "smoke": 3}[preset]
    return replace(VARIANTS[variant], epochs=epochs)


def build_model(pairs: Pairs) -> DSCMR:
    """A network sized for these features and classes, its weights not yet drawn."""
    return DSCMR(pairs.test.images.shape[1], pairs.test.texts.shape[1], pairs.classes)


def initial_model(pairs: Pairs, seed: int) -> DSCMR:
    """The network that the training of a seed starts from."""
    model = build_model(pairs)
    initialise(model, generator(seed, "initial weights"))
    return model


@dataclass
class At:
    """What changes in training besides the network and the optimiser."""

    loss: Tensor = field(default_factory=lambda: torch.zeros(()))  # J summed over the pairs so far in the epoch


def train(run: Run, recipe: Recipe) -> Trained:
    """500 epochs of Adam on J = J1 + λ J2 + η J3, the retrieval scored after each."""
    pairs = load(run.data)
    images, texts, labels = pairs.train.images, pairs.train.texts, pairs.train.labels
    Y = F.one_hot(labels, pairs.classes).float()

    model = initial_model(pairs, run.seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, betas=recipe.betas, fused=True)
    precision = run.choose_precision(recipe.precision)

    at = At()
    run.resume(at, model=model, optimiser=optimiser)
    J = Backpropagation(model, recipe.lam, recipe.eta, recipe.norms, precision)  # begins with a copy of the weights
    for epoch in run.epochs(recipe.epochs, samples=len(labels)):
        order = order_of_epoch(labels, run.seed, epoch, recipe)
        for _, batch in run.steps(order.split(recipe.batch_size)):
            # J1 + λ J2 + η J3 as in model.py; leaves its gradients with the model
            at.loss += J(images[batch], texts[batch], Y[batch]) * len(batch)
            optimiser.step()
            J.follow()
            run.advance(len(batch))

        mean_loss = (at.loss / len(labels)).item()
        run.require_finite(mean_loss, f"the loss in epoch {epoch + 1}")
        run.log(loss=mean_loss, **measure(J, pairs))
        at.loss.zero_()

    return Trained(
        weights=copied(model),
        split=pairs.split_hash(),
        metrics=metrics_of_curves(run.curves, recipe),
        details={
            "test_labels": pairs.test.labels.tolist(),
            "tsne_before": tsne(*represent(initial_model(pairs, run.seed), pairs.test)),
            "tsne_after": tsne(*represent(model, pairs.test)),
        },
    )


def order_of_epoch(labels: Tensor, seed: int, epoch: int, recipe: Recipe) -> Tensor:
    """The order in which the training pairs come in an epoch, counted from 0. Shape (N,).

    "class" sorts the pairs of the files by class, as the authors' Pascal files are.
    """
    if recipe.order == "shuffled":
        return torch.randperm(len(labels), generator=generator(seed, "order", epoch))
    if recipe.order == "class":
        return labels.argsort(stable=True)
    return torch.arange(len(labels))


@torch.no_grad()
def represent(model: DSCMR, part: Part) -> tuple[Tensor, Tensor]:
    """The pairs in the common space, in float32: U and V, (N, 1024) each."""
    return model(part.images, part.texts)


def measure(J: Backpropagation, pairs: Pairs) -> dict[str, float]:
    """What the curves hold for an epoch: mAP on the test pairs, and on the validation pairs where there are any."""
    parts = {"test": pairs.test, "val": pairs.validation}
    return {
        f"{name}_{metric}": value
        for name, part in parts.items()
        if len(part)
        for metric, value in scores(both_ways(*J.represent(part.images, part.texts), part.labels)).items()
    }


def metrics_of_curves(curves: dict[str, list[float]], recipe: Recipe) -> dict[str, dict[str, float]]:
    """Test mAP at the epoch with the best average mAP on the test pairs, and at the one with the best
    on the validation pairs; the earliest, where several tie."""
    metrics = {}
    for part in ("test", "val"):
        averages = curves.get(f"{part}_map_avg")
        if averages:
            best = averages.index(max(averages))
            metrics[f"{part}-best"] = {name: curves[f"test_{name}"][best] for name in ("map_i2t", "map_t2i", "map_avg")}
    return metrics


if __name__ == "__main__":
    from common.cli.commands import run_paper_module

    run_paper_module(__file__)
