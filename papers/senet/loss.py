"""What is learnt from a batch, on CIFAR-10 as on ImageNet."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def loss_and_mistakes(model: nn.Module, precision: torch.dtype) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The function from a batch (N, 3, H, W) and its labels (N,) to the mean cross-entropy, and how many pictures
    were classified wrongly."""

    def step(batch: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(batch.device.type, precision, enabled=precision != torch.float32):
            logits = model(batch)
        logits = logits.float()
        return F.cross_entropy(logits, labels), (logits.argmax(1) != labels).sum()

    return step
