"""A line between two clouds (Nobody, 1958): logistic regression by stochastic gradient descent.

The paper reports 10.0 % test error (Table 1). This is the smallest whole paper, and shows what a train.py is made of.

    bash reproduce.sh toy
    python -m papers.toy.train --seeds 0
"""

from dataclasses import dataclass, replace
from typing import Annotated

import pydantic.dataclasses
import torch
import torch.nn.functional as F
from papers.toy.data import load
from papers.toy.model import Line, initialise
from pydantic import Field
from torch.nn.parallel import DistributedDataParallel

from common.base.metrics import error_percent
from common.data.splits import split_hash
from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.weights import copied

DEVICES = ("cpu",)
SEVERAL_DEVICES = True  # each process takes its share of every batch


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class Recipe:
    """Everything that makes the numbers."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 20  # passes over the points (Sec. 2)
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 20  # points of an update (Sec. 2)
    learning_rate: Annotated[float, Field(gt=0)] = 0.1  # the same from first to last (Sec. 2)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # Sec. 2


VARIANTS = {"line": Recipe()}


def recipe(variant: str, preset: str, standin: bool = False) -> Recipe:
    """The recipe of a variant under a preset."""
    full = VARIANTS[variant]
    return replace(full, epochs={"full": full.epochs, "quick": 8, "smoke": 3}[preset])


@dataclass
class At:
    """What changes in training besides the line and the optimiser."""

    loss: float = 0.0  # summed over the epoch


def train(run: Run, recipe: Recipe) -> Trained:
    """Epochs over the points in random order, by stochastic gradient descent with momentum (Sec. 2)."""
    clouds = load(run.data)
    points, labels = clouds.train_points, clouds.train_labels
    rank, processes = run.processes.rank, run.processes.count

    model = Line()
    initialise(model, generator(run.seed, "initial weights"))
    network = DistributedDataParallel(model) if processes > 1 else model
    optimiser = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)

    at = At()
    run.resume(at, model=model, optimiser=optimiser)
    for epoch in run.epochs(recipe.epochs, samples=len(points)):
        order = torch.randperm(len(points), generator=generator(run.seed, "order", epoch))
        for _, batch in run.steps(order.split(recipe.batch_size)):
            mine = batch[rank::processes]
            loss = F.cross_entropy(network(points[mine]), labels[mine])
            run.require_finite(loss.item(), f"the loss in epoch {epoch + 1}")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            at.loss += loss.item() * len(mine)
            run.advance(len(batch))

        with torch.no_grad():
            error = error_percent(model(clouds.test_points).argmax(dim=1), clouds.test_labels)
        run.log(
            loss=run.processes.sum(torch.tensor(at.loss, dtype=torch.float64)).item() / len(points), test_error=error
        )
        at.loss = 0.0

    return Trained(weights=copied(model), split=split_hash(train=labels, test=clouds.test_labels))


if __name__ == "__main__":
    from common.cli.commands import run_paper_module

    run_paper_module(__file__)
