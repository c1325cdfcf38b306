"""DSCMR (Zhen, Hu, Wang, Peng, CVPR 2019), and the epoch it is scored at.

The paper reports the mean average precision of retrieval between pictures and texts; the authors'
code reports that of the epoch with the best score on the test set. Here every run is scored three
ways: at that epoch (`test-best`), at the best one on validation pairs (`val-best`), and at the last
(`last`). What the recipe takes from the paper and what from the authors' code is said field by
field in `Recipe`, and on the page in README.md.

    bash reproduce.sh dscmr
    python -m papers.dscmr.train --seeds 0
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from common.base.errors import UsageError
from common.training.determinism import generator
from common.training.device import fast_precision
from common.training.recipes import check_bounds
from common.training.run import Run, Trained
from papers.dscmr.backpropagation import Backpropagation
from papers.dscmr.data import Pairs, Part, load
from papers.dscmr.model import DSCMR, initialise
from papers.dscmr.retrieval import both_ways, scores
from papers.dscmr.tsne import tsne

DEVICES = ("cpu",)
LOG_EVERY = 10  # epochs between two writes of curves.csv
MOST = {"epochs": 10_000, "batch": 100_000}


@dataclass(frozen=True)
class Recipe:
    """Everything that makes the numbers. 'Code' marks what is taken from the authors' code."""

    lam: float = 1e-3  # λ, the weight of J2 (code: alpha)
    eta: float = 1e-1  # η, the weight of J3 (code: beta)
    norms: Literal["frobenius", "sample"] = "frobenius"  # the paper's formulas; "sample" is the code's
    epochs: int = 500  # code
    batch: int = 100  # code
    lr: float = 1e-4  # code: Adam
    betas: tuple[float, float] = (0.5, 0.999)  # code
    order: Literal["file", "shuffled", "class"] = "file"  # code: never shuffled
    bf16: bool = True  # ours: branches and J2 multiply in bfloat16 on processors made for it

    def __post_init__(self):
        check_bounds(self, {"epochs": 1, "batch": 1, "lam": 0, "eta": 0}, MOST)
        if self.lr <= 0:
            raise UsageError(f"--lr {self.lr}: more than 0.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"--betas {list(self.betas)}: from 0 to less than 1.")


FILE_ORDER, SHUFFLED, BLOCKED = Recipe(), Recipe(order="shuffled"), Recipe(order="class")
VARIANTS = {
    "wikipedia-file-order": FILE_ORDER,
    "wikipedia-shuffled": SHUFFLED,
    "wikipedia-blocked": BLOCKED,
    "wikipedia-file-order-sample-norms": replace(FILE_ORDER, norms="sample"),
    "wikipedia-shuffled-sample-norms": replace(SHUFFLED, norms="sample"),
    "wikipedia-blocked-sample-norms": replace(BLOCKED, norms="sample"),
    "wikipedia-shuffled-float32": replace(SHUFFLED, bf16=False),
    "pascal-blocked": FILE_ORDER,  # its files lie class by class
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
    """A network of the sizes of these features and classes, its weights not drawn yet."""
    return DSCMR(pairs.test.images.shape[1], pairs.test.texts.shape[1], pairs.classes)


def initial_model(pairs: Pairs, seed: int) -> DSCMR:
    """The network that the training of a seed starts from."""
    model = build_model(pairs)
    initialise(model, generator(seed, "initial weights"))
    return model


def train(run: Run, recipe: Recipe) -> Trained:
    """500 epochs of Adam on J = J1 + λ J2 + η J3, the retrieval scored after each."""
    pairs = load(run.data)
    images, texts, labels = pairs.train.images, pairs.train.texts, pairs.train.labels
    Y = F.one_hot(labels, pairs.classes).float()
    precision = fast_precision("cpu") if recipe.bf16 else torch.float32
    run.precision = str(precision).removeprefix("torch.")

    model = initial_model(pairs, run.seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr, betas=recipe.betas, fused=True)

    first, curves = 0, {}
    if state := run.resume():
        first, curves = state["epoch"], state["curves"]
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    J = Backpropagation(model, recipe.lam, recipe.eta, recipe.norms, precision)

    with run.progress("training", recipe.epochs * len(labels), first * len(labels)):
        for epoch in range(first, recipe.epochs):
            total = torch.zeros(())
            for batch in order_of_epoch(labels, run.seed, epoch, recipe).split(recipe.batch):
                # J1 + λ J2 + η J3 as in model.py; leaves its gradients with the model
                total += J(images[batch], texts[batch], Y[batch]) * len(batch)
                optimiser.step()
                J.follow()

            mean_loss = (total / len(labels)).item()
            run.require_finite(mean_loss, f"the loss in epoch {epoch + 1}")
            for name, value in {"loss": mean_loss, **measure(J, pairs)}.items():
                curves.setdefault(name, []).append(value)
            if (epoch + 1) % LOG_EVERY == 0 or epoch + 1 == recipe.epochs:
                run.log(curves)
            state = {
                "epoch": epoch + 1,
                "curves": curves,
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
            }
            run.advance(len(labels), state, f"epoch {epoch + 1}/{recipe.epochs}")

    return Trained(
        weights=model.state_dict(),
        split=pairs.split_hash(),
        samples=recipe.epochs * len(labels),
        curves=curves,
        metrics=chosen_epochs(curves),
        details={
            "test_labels": pairs.test.labels.tolist(),
            "tsne_before": tsne(*represent(initial_model(pairs, run.seed), pairs.test)),
            "tsne_after": tsne(*represent(model, pairs.test)),
        },
    )


def order_of_epoch(labels: Tensor, seed: int, epoch: int, recipe: Recipe) -> Tensor:
    """The order in which the training pairs come in an epoch, counted from 0. Shape (N,).

    "class" sorts the pairs of the files by class, which is how the authors' Pascal files lie.
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
    """What the curves hold of an epoch: mAP on the test pairs, and on the validation pairs where there are any."""
    parts = {"test": pairs.test, "val": pairs.validation}
    return {
        f"{name}_{metric}": value
        for name, part in parts.items()
        if len(part)
        for metric, value in scores(both_ways(*J.represent(part.images, part.texts), part.labels)).items()
    }


def chosen_epochs(curves: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Test mAP at the epoch with the best average mAP on the test pairs, and at the one with the best
    on the validation pairs; the earliest, where several are."""
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
