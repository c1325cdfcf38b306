"""A straight line (Sec. 2)."""

import torch
from torch import nn


class Line(nn.Linear):
    """Two logits of a point in the plane: (N, 2) to (N, 2)."""

    def __init__(self) -> None:
        super().__init__(2, 2)


def initialise(model: Line, draw: torch.Generator) -> None:
    """Weights from a normal distribution, no bias (Sec. 2)."""
    nn.init.normal_(model.weight, generator=draw)
    nn.init.zeros_(model.bias)
