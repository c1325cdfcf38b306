"""The common space in two dimensions, for the record, so that its picture needs no weights."""

import torch
from torch import Tensor

PERPLEXITY = 30


def tsne(U: Tensor, V: Tensor) -> list[float]:
    """t-SNE by cosine of the pictures, then the texts: x, y of each in turn, to one decimal.
    U and V of shape (N, d), N at least 16."""
    from sklearn.manifold import TSNE

    points = torch.cat([U, V]).numpy()
    # Cosine by hand: on the unit sphere the Euclidean distance orders points as the cosine does.
    points = points / (points**2).sum(axis=1, keepdims=True) ** 0.5
    flat = TSNE(perplexity=PERPLEXITY, init="pca", random_state=0).fit_transform(points)
    return [round(float(value), 1) for value in flat.reshape(-1)]
