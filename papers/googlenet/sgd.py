"""What training on flowers and training on ImageNet have in common: the input, the rate, the losses (Secs. 5 and 6)."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from papers.googlenet.model import GoogLeNet

if TYPE_CHECKING:  # both import this module
    from papers.googlenet.imagenet import ImageNetRecipe
    from papers.googlenet.train import Recipe


def learning_rate(recipe: "Recipe | ImageNetRecipe", epoch: int) -> float:
    """The rate of an epoch, counted from 0."""
    return recipe.learning_rate * recipe.decay ** (epoch // recipe.decay_epochs)


def as_input(pictures: Tensor, mean: Tensor, recipe: "Recipe | ImageNetRecipe") -> Tensor:
    """Pictures (N, 3, H, W), 0 to 255, as the network takes them; the mean colour is (3, 1, 1)."""
    return (pictures.float() - mean) * recipe.grey_level


def losses(
    model: GoogLeNet, seen: Tensor, labels: Tensor, draw: torch.Generator, precision: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | int]:
    """Logits of a batch, the classifier's own mean cross-entropy, and the sum of the heads'; 0 where there are none."""
    with torch.autocast(seen.device.type, precision, enabled=precision != torch.float32):
        outputs = model(seen, draw)
    loss, *of_heads = (F.cross_entropy(logits.float(), labels) for logits in outputs)
    return outputs[0], loss, sum(of_heads)
