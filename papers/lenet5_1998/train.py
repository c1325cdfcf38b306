"""LeNet-5 (LeCun, Bottou, Bengio, Haffner, 1998), trained as printed.

The paper reports 0.95 % test error and 0.35 % training error on MNIST, and
0.8 % test error when trained with distorted patterns (Sec. III-B, Figures 5
and 9). `Recipe` says field by field what is taken from the paper and what had to
be chosen; so does the page in README.md.

    bash reproduce.sh lenet5_1998
    python -m papers.lenet5_1998.train --seeds 0
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from common.base.errors import UsageError
from common.base.metrics import error_percent
from common.training.determinism import generator
from common.training.recipes import CHECKED
from common.training.run import Run, Trained
from common.training.weights import copied
from papers.lenet5_1998 import kernel, sdlm
from papers.lenet5_1998.data import Digits, Distortion, as_patterns, distorted_patterns, load
from papers.lenet5_1998.model import LeNet5, Loss, initialise

DEVICES = ("cpu",)  # one pattern at a time is too little work for a GPU
CHUNK = 500  # updates between two checks of the clock and of signals
PAPER_PASSES = 20
TRAIN_ERROR_PASS = 19  # the paper's training error is that "after 19 passes" (Sec. III-B)

Passes = Annotated[int, Field(ge=1, le=10_000)]
Schedule = Annotated[tuple[tuple[Passes, Annotated[float, Field(gt=0)]], ...], Field(min_length=1)]


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKED)
class Recipe:
    """Everything that makes the numbers. 'Open' marks what the paper does not say;
    README.md lists what was tried."""

    passes: Passes = PAPER_PASSES  # passes over the training set (Sec. III-B)
    eta: Schedule = (  # global learning rate: pairs of a number of passes and their rate (Sec. III-B)
        (2, 0.0005), (3, 0.0002), (3, 0.0001), (4, 0.00005), (8, 0.00001),
    )  # fmt: skip
    mu: Annotated[float, Field(gt=0)] = 0.02  # added to second derivatives, so that no step is too long (Sec. III-B)
    # 60,000 is the whole training set.
    curvature_patterns: Annotated[int, Field(ge=1, le=60_000)] = 500  # patterns for second derivatives (Sec. III-B)
    order: Literal["constant", "fresh"] = "constant"  # open: one random order for all passes, or a new one for each
    equation: Literal["eq8", "eq9"] = "eq9"  # open: which equation is the loss
    j: Annotated[float, Field(ge=0)] = 10.0  # open: the constant j of eq. 9
    subsample: Literal["sum", "mean"] = "mean"  # open: S2 and S4 add (Sec. II-B) or average (Sec. II-A)
    shared_coefficient: bool = False  # open: four connections share a coefficient of S2 or S4, or it scales their sum
    top_curvature: Literal["exact", "quadratic"] = "quadratic"  # open: second derivatives start from eq. 9, or eq. 8
    bound: Annotated[float, Field(gt=0)] = 2.4  # b of the initial weights U(-b/F^e, b/F^e), F the fan-in (App. A)
    fan_in_exponent: Annotated[float, Field(ge=0, le=1)] = 0.5  # e of the initial weights; Appendix A prints 1
    optimiser: Literal["sdlm", "sgd"] = "sdlm"  # stochastic diagonal Levenberg-Marquardt (Appendix C), or plain SGD
    squash_convolutions: bool = True  # squash after C1, C3 and C5 too (Sec. II-B: every layer up to F6)
    padding: Literal["background", "replicate"] = "background"  # what surrounds the image; Sec. II-B: background
    distorted_copies: Annotated[int, Field(ge=0, le=100)] = 0  # distorted versions of each pattern; Sec. III-B: 9
    # Beyond these amounts nothing of a digit is left.
    shift: Annotated[float, Field(ge=0, le=28)] = 1.0  # open: how far distortions shift, in pixels
    scale: Annotated[float, Field(ge=0, le=1)] = 0.08  # open: how much distortions scale, as a natural logarithm
    squeeze: Annotated[float, Field(ge=0, le=1)] = 0.08  # open: how much distortions squeeze, as a natural logarithm
    shear: Annotated[float, Field(ge=0, le=1)] = 0.15  # open: how far distortions shear, in pixels per pixel of height
    train_patterns: Annotated[int, Field(ge=1)] | None = None  # ours: train on only the first N patterns; null for all
    held_out: Annotated[int, Field(ge=0)] = 0  # ours: the last N training patterns replace the test set
    compiled: bool = True  # ours: train with kernel.c where a C compiler is available

    @property
    def loss(self) -> Loss:
        return Loss(self.equation, self.j)

    @property
    def curvature(self) -> sdlm.Curvature:
        return sdlm.Curvature(self.shared_coefficient, self.top_curvature)

    @property
    def distortion(self) -> Distortion:
        return Distortion(self.shift, self.scale, self.squeeze, self.shear)


VARIANTS = {
    "lenet5": Recipe(),
    "lenet5-distorted": Recipe(distorted_copies=9),
    # The widely read reproduction. What is known of it: no squashing after C1, C3 and C5,
    # replicate padding, eq. 8, plain SGD from 1e-3 to 1e-4, 25 epochs. Guessed:
    # one pattern per step, where the rate falls, PyTorch's usual initial weights.
    "blog": Recipe(
        passes=25, eta=((5, 0.001), (5, 0.0005), (5, 0.0002), (10, 0.0001)), optimiser="sgd",
        equation="eq8", squash_convolutions=False, padding="replicate", bound=1.0, order="fresh",
    ),
}  # fmt: skip


def recipe(variant: str, preset: str, standin: bool = False) -> Recipe:
    """The recipe of a variant under a preset. The stand-in is so small that it needs no shorter one."""
    full = VARIANTS[variant]
    if preset == "smoke":
        return replace(full, passes=2, train_patterns=300, curvature_patterns=50)
    if preset == "quick":
        return replace(full, passes=4)
    return full


def eta_of_pass(recipe: Recipe, number: int) -> float:
    """The global rate of pass `number`, counted from 1; the last one holds thereafter."""
    etas = [eta for passes, eta in recipe.eta for _ in range(passes)]
    return etas[min(number, len(etas)) - 1]


def build_model(recipe: Recipe) -> LeNet5:
    return LeNet5(subsample_mean=recipe.subsample == "mean", squash_convolutions=recipe.squash_convolutions)


def hold_out(digits: Digits, recipe: Recipe) -> Digits:
    """The digits that this recipe trains and is measured on."""
    images, labels = digits.train_images, digits.train_labels
    test_images, test_labels = digits.test_images, digits.test_labels
    if recipe.held_out >= len(images):
        raise UsageError(f"--held-out {recipe.held_out}: there are {len(images)} to train on.")
    if recipe.held_out:
        test_images, test_labels = images[-recipe.held_out :], labels[-recipe.held_out :]
        images, labels = images[: -recipe.held_out], labels[: -recipe.held_out]
    count = len(images) if recipe.train_patterns is None else recipe.train_patterns
    if count > len(images):
        raise UsageError(f"--train-patterns {count}: there are {len(images)}.")
    return Digits(images[:count], labels[:count], test_images, test_labels)


@dataclass
class At:
    """What changes in training. All of it: the network's parameters are here as one vector."""

    weights: Tensor  # (60000,)
    rates: Tensor  # (60000,), the step of every parameter in this pass
    mistakes: int = 0  # so far in the pass


def train(run: Run, recipe: Recipe) -> Trained:
    """Twenty passes over the training set, one update for each pattern (Sec. III-B)."""
    digits = hold_out(load(run.data), recipe)
    count = len(digits.train_labels)

    model = build_model(recipe)
    initialise(model, recipe.bound, recipe.fan_in_exponent, generator(run.seed, "initial weights"))
    fast = kernel.build(model, recipe.loss, recipe.curvature) if recipe.compiled else None
    updates = fast.updates if fast else partial(slow_updates, model, recipe.loss)
    run.note_compiled(fast.compiler if fast else None)

    at = At(flat_weights(model), rates=torch.empty(0))
    run.resume(at)
    for epoch in run.epochs(recipe.passes, samples=count):
        number = epoch + 1  # of the pass, as the paper counts
        eta = eta_of_pass(recipe, number)
        patterns, labels = present(digits, patterns_of_pass(run.seed, number, count, recipe), run.seed, recipe)
        if run.at_epoch_start:
            at.rates = rates_of_pass(eta, at.weights, patterns, model, fast, recipe)
        for _, order in run.steps(torch.arange(count).split(CHUNK)):
            penalty, mistakes = updates(at.weights, at.rates, patterns, labels, order)
            run.require_finite(penalty, f"the loss in pass {number}")
            at.mistakes += mistakes
            run.advance(len(order))

        # The errors of the patterns as they came (Fig. 5's training curve can look worse than the test's
        # for that reason), then of both sets with the current weights.
        vector_to_parameters(at.weights, model.parameters())
        classify_fast = partial(fast.classify, at.weights) if fast else None
        trained = classify(model, digits.train_images, recipe, classify_fast)
        tested = classify(model, digits.test_images, recipe, classify_fast)
        run.log(
            eta=eta,
            online_error=100 * at.mistakes / count,
            train_error=error_percent(trained, digits.train_labels),
            **{"held_out_error" if recipe.held_out else "test_error": error_percent(tested, digits.test_labels)},
        )
        at.mistakes = 0

    return Trained(weights=copied(model), split=digits.split_hash(), metrics=metrics_of_curves(run.curves, recipe))


def metrics_of_curves(curves: dict[str, list[float]], recipe: Recipe) -> dict[str, dict[str, float]]:
    """The errors after the last pass, and the training error after the 19th, which the paper quotes (Sec. III-B)."""
    tested, trained = curves["held_out_error" if recipe.held_out else "test_error"], curves["train_error"]
    last = {"last": {"test_error": tested[-1], "train_error": trained[-1]}}
    if recipe.passes != PAPER_PASSES:
        return last
    return last | {"pass-19": {"train_error": trained[TRAIN_ERROR_PASS - 1]}}


def flat_weights(model: LeNet5) -> Tensor:
    """A copy of all parameters as one vector. Shape (60000,)."""
    return parameters_to_vector(model.parameters()).detach().clone()


def patterns_of_pass(seed: int, number: int, count: int, recipe: Recipe) -> Tensor:
    """Which patterns come in pass `number`, in their order. Shape (count,).

    Numbers from `count` on stand for distorted patterns (see `distorted_patterns`):
    with nine copies the passes go through all 600,000 before any repeats.
    """
    copies = 1 + recipe.distorted_copies
    round_, part = divmod(number - 1, copies)
    epoch = 0 if recipe.order == "constant" else round_
    order = torch.randperm(copies * count, generator=generator(seed, "order", epoch))
    return order[part * count : (part + 1) * count]


def present(digits: Digits, which: Tensor, seed: int, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """The patterns (N, 32, 32) and labels (N,) of a pass, in the order in which they come."""
    if recipe.distorted_copies:
        images = distorted_patterns(digits.train_images, which, seed, recipe.distortion)
    else:
        images = digits.train_images[which]
    return as_patterns(images, recipe.padding), digits.train_labels[which % len(digits.train_labels)]


def rates_of_pass(eta: float, weights: Tensor, patterns: Tensor, model: LeNet5, fast, recipe: Recipe) -> Tensor:
    """The step of every parameter for one pass. Shape (60000,)."""
    if recipe.optimiser == "sgd":
        return torch.full_like(weights, eta)
    some = patterns[: recipe.curvature_patterns].contiguous()  # a random sample: the order is random
    if fast:
        curvature = fast.second_derivatives(weights, some)
    else:
        vector_to_parameters(weights, model.parameters())
        curvature = sdlm.second_derivatives(model, some, recipe.loss, recipe.curvature)
    return sdlm.step_sizes(eta, recipe.mu, curvature)


def slow_updates(
    model: LeNet5, loss: Loss, weights: Tensor, rates: Tensor, patterns: Tensor, labels: Tensor, order: Tensor
) -> tuple[float, int]:
    """`Kernel.updates` without a compiler."""
    vector_to_parameters(weights.clone(), model.parameters())
    penalties, mistakes = 0.0, 0
    for k in order.tolist():
        penalty, wrong = sdlm.update(model, rates, patterns[k], labels[k], loss)
        penalties, mistakes = penalties + penalty, mistakes + wrong
    weights.copy_(flat_weights(model))
    return penalties, mistakes


@torch.no_grad()
def classify(model: LeNet5, images: Tensor, recipe: Recipe, fast: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The class of each image, by the network or by the kernel's `fast`. Shape (N,)."""
    parts = (as_patterns(part, recipe.padding) for part in images.split(1000))
    return torch.cat([fast(part) if fast else model(part[:, None]).argmin(dim=1) for part in parts])


if __name__ == "__main__":
    from common.cli.commands import run_paper_module

    run_paper_module(__file__)
