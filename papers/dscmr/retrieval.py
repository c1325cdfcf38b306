"""How well a query finds the items of its class: ranking by cosine, mAP, precision and recall.

All items are ranked, nearest first. Items at the same cosine, in float32, keep the order
that they have in the data: that is how ties are broken.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RECALL_LEVELS = [level / 20 for level in range(1, 21)]
RANKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def cosines(queries: Tensor, items: Tensor) -> Tensor:
    """Of every query with every item. Representations (Q, d) and (N, d) to (Q, N)."""
    return F.normalize(queries) @ F.normalize(items).T


def ranked_relevance(cosine: Tensor, query_labels: Tensor, item_labels: Tensor) -> Tensor:
    """Whether the item at each rank is of the query's class. `cosine` (Q, N), labels (Q,) and (N,)
    to a boolean (Q, N)."""
    return item_labels[ranking(cosine)] == query_labels[:, None]


def ranking(cosine: Tensor) -> Tensor:
    """Each query's items, nearest first, ties in their order. Shape (Q, N), as `cosine`.

    `cosine.argsort(descending=True, stable=True)`, but several times as fast: whole numbers that
    hold the cosine in their upper half and the item's place in the lower one are simply sorted.
    """
    distance = 0.0 - cosine.float().numpy()  # nearest first; and no -0.0, whose bits are not those of 0.0
    bits = distance.view(np.int32)
    ascending = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # floats compare as these whole numbers do
    keys = ascending.astype(np.int64) << 32 | np.arange(cosine.shape[1])
    keys.sort(axis=1)
    return torch.from_numpy(keys & 0xFFFFFFFF)


def precision_at_every_rank(relevant: Tensor) -> Tensor:
    """The share of relevant items among the first k, for k = 1…N. Shape (Q, N), float64."""
    ranks = torch.arange(1, relevant.shape[1] + 1)
    return relevant.cumsum(dim=1).double() / ranks


def mean_average_precision(relevant: Tensor) -> float:
    """The mean over queries of the mean over their relevant items of the precision at that item's
    rank; 0 for a query without any. `relevant` as from `ranked_relevance`."""
    precisions = (precision_at_every_rank(relevant) * relevant).sum(dim=1)
    return (precisions / relevant.sum(dim=1).clamp(min=1)).mean().item()


def both_ways(U: Tensor, V: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """`ranked_relevance` of texts for pictures ("i2t") and of pictures for texts ("t2i"), each pair a query."""
    cosine = cosines(U, V)
    return {
        "i2t": ranked_relevance(cosine, labels, labels),
        "t2i": ranked_relevance(cosine.T.contiguous(), labels, labels),
    }


def scores(relevant: dict[str, Tensor]) -> dict[str, float]:
    """map_i2t, map_t2i and their mean map_avg, from `both_ways`."""
    i2t, t2i = (mean_average_precision(relevant[way]) for way in ("i2t", "t2i"))
    return {"map_i2t": i2t, "map_t2i": t2i, "map_avg": (i2t + t2i) / 2}


def precision_recall(relevant: Tensor) -> list[float]:
    """Interpolated precision (the best at this recall or a higher one) at `RECALL_LEVELS`, averaged
    over the queries that have relevant items."""
    relevant = relevant[relevant.any(dim=1)]
    hits = relevant.cumsum(dim=1)
    best_from_here = precision_at_every_rank(relevant).flip(1).cummax(dim=1).values.flip(1)
    curve = []
    for level in RECALL_LEVELS:
        needed = (level * hits[:, -1:].double() - 1e-9).ceil()  # how many relevant items make this recall
        first = (hits >= needed).int().argmax(dim=1, keepdim=True)
        curve.append(best_from_here.gather(1, first).mean().item())
    return curve


def precision_at_k(relevant: Tensor) -> list[list[float]]:
    """[k, P@k averaged over the queries] at those of `RANKS` that there are enough items for."""
    precision = precision_at_every_rank(relevant).mean(dim=0)
    return [[k, precision[k - 1].item()] for k in RANKS if k <= len(precision)]
