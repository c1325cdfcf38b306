"""DSCMR on features of Wikipedia's sizes: a scored epoch, and the scoring alone, against a DataLoader
over NumPy rows, float32 throughout, Adam as it comes, and mean average precision in Python loops."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.publishing.bench import Job
from common.training.determinism import generator
from common.training.device import fast_precision
from papers.dscmr.backpropagation import Backpropagation
from papers.dscmr.data import Part
from papers.dscmr.model import COMMON, DSCMR, HIDDEN, J1, J3, initialise
from papers.dscmr.retrieval import both_ways, scores
from papers.dscmr.train import Recipe

TRAIN_PAIRS, VALIDATION_PAIRS, TEST_PAIRS, IMAGE_SIZE, TEXT_SIZE, CLASSES = 2173, 231, 462, 128, 10, 10
RECIPE = Recipe()
THREADS = 2
# Multiplications and additions that training takes for a pair: forward, and for the gradients of
# weights and of inputs, which the first layers do not need; of J2, three products with the batch.
FLOPS_PAIR = (
    3 * 2 * 2 * (HIDDEN * COMMON + COMMON * CLASSES)
    + 2 * 2 * (IMAGE_SIZE + TEXT_SIZE) * HIDDEN
    + 3 * 3 * 2 * RECIPE.batch_size * COMMON
)
FLOPS_QUERY = 2 * TEST_PAIRS * COMMON


class Rows(Dataset):
    def __init__(self, *arrays: np.ndarray):
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        return tuple(array[index] for array in self.arrays)


def loop_map(queries: np.ndarray, items: np.ndarray, labels: np.ndarray) -> float:
    """Mean average precision as one writes it first."""
    order = cdist(queries, items, "cosine").argsort()
    precisions = []
    for query in range(len(labels)):
        found, precision = 0.0, 0.0
        for rank, item in enumerate(order[query]):
            if labels[item] == labels[query]:
                found += 1
                precision += found / (rank + 1)
        precisions.append(precision / max(found, 1))
    return float(np.mean(precisions))


def loop_scores(U: Tensor, V: Tensor, labels: Tensor) -> list[float]:
    plain = U.numpy(), V.numpy()
    return [loop_map(queries, items, labels.numpy()) for queries, items in (plain, plain[::-1])]


def jobs() -> list[Job]:
    draw = generator(0, "benchmark")
    count = TRAIN_PAIRS + VALIDATION_PAIRS + TEST_PAIRS
    images, texts = (torch.rand(count, size, generator=draw) for size in (IMAGE_SIZE, TEXT_SIZE))
    labels = torch.randint(CLASSES, (count,), generator=draw)
    return [_epoch(Part(images, texts, labels)), _scoring(labels[-TEST_PAIRS:])]


def _model() -> DSCMR:
    model = DSCMR(IMAGE_SIZE, TEXT_SIZE, CLASSES)
    initialise(model, generator(0, "benchmark weights"))
    return model


def straightforward_loss(model: DSCMR, U: Tensor, V: Tensor, Y: Tensor) -> Tensor:
    """J, with J2 pair of modalities by pair of modalities."""
    S, u, v = Y @ Y.T, F.normalize(U), F.normalize(V)
    thetas = [0.5 * a @ b.T for a, b in ((u, u), (u, v), (v, v))]
    J2_of_batch = sum((torch.log(1 + torch.exp(theta)) - S * theta).mean() for theta in thetas)
    return J1(model, U, V, Y, RECIPE.norms) + RECIPE.lam * J2_of_batch + RECIPE.eta * J3(U, V, RECIPE.norms)


def _epoch(pairs: Part) -> Job:
    """The training pairs once, then the scores on validation and test pairs."""
    model, slow = _model(), _model()
    how = {"lr": RECIPE.learning_rate, "betas": RECIPE.betas}
    optimiser = torch.optim.Adam(model.parameters(), fused=True, **how)
    slow_optimiser = torch.optim.Adam(slow.parameters(), **how)
    precision = fast_precision("cpu")
    J = Backpropagation(model, RECIPE.lam, RECIPE.eta, RECIPE.norms, precision)
    train = pairs.rows(slice(TRAIN_PAIRS))
    scored = [pairs.rows(slice(TRAIN_PAIRS, -TEST_PAIRS)), pairs.rows(slice(-TEST_PAIRS, None))]
    Y = F.one_hot(train.labels, CLASSES).float()
    rows = Rows(train.images.numpy(), train.texts.numpy(), Y.numpy())

    def ours() -> int:
        for batch in torch.arange(TRAIN_PAIRS).split(RECIPE.batch_size):
            J(train.images[batch], train.texts[batch], Y[batch])
            optimiser.step()
            J.follow()
        for part in scored:
            scores(both_ways(*J.represent(part.images, part.texts), part.labels))
        return TRAIN_PAIRS

    def straightforward() -> int:
        for some_images, some_texts, some_Y in DataLoader(rows, batch_size=RECIPE.batch_size):
            loss = straightforward_loss(slow, *slow(some_images, some_texts), some_Y)
            slow_optimiser.zero_grad()
            loss.backward()
            slow_optimiser.step()
        for part in scored:
            with torch.no_grad():
                U, V = slow(part.images, part.texts)
            loop_scores(U, V, part.labels)
        return TRAIN_PAIRS

    return Job("scored epoch", ours, straightforward, FLOPS_PAIR, THREADS, "500 epochs", 500 * TRAIN_PAIRS, precision)


def _scoring(labels: Tensor) -> Job:
    draw = generator(0, "benchmark representations")
    U, V = (torch.randn(TEST_PAIRS, COMMON, generator=draw) for _ in range(2))

    def ours() -> int:
        scores(both_ways(U, V, labels))
        return 2 * TEST_PAIRS

    def straightforward() -> int:
        loop_scores(U, V, labels)
        return 2 * TEST_PAIRS

    return Job("mAP both ways", ours, straightforward, FLOPS_QUERY, THREADS, "an epoch's scores", 2 * TEST_PAIRS)
