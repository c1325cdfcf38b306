"""DSCMR: two branches that meet in one common space.

L. Zhen, P. Hu, X. Wang, D. Peng, "Deep Supervised Cross-Modal Retrieval", CVPR 2019. A picture's
and a text's features go through a hidden layer of their own and one last layer that both share,
into the common space; one linear classifier, shared too, maps it to the label space. The sizes and
the bias terms are those of the authors' code. U and V are the paper's common representations of the
pictures and of the texts; the paper writes them as columns, here they are rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN, COMMON = 2048, 1024


class DSCMR(nn.Module):
    """Image features (N, image_size) and text features (N, text_size) to U, V (N, 1024) each."""

    def __init__(self, image_size: int, text_size: int, classes: int):
        super().__init__()
        self.image = nn.Linear(image_size, HIDDEN)
        self.text = nn.Linear(text_size, HIDDEN)
        self.common = nn.Linear(HIDDEN, COMMON)  # shared by both branches, no activation after it
        self.P = nn.Linear(COMMON, classes)  # the linear classifier, shared too, without a softmax

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.cat([F.relu(self.image(images)), F.relu(self.text(texts))])
        U, V = self.common(hidden).split([len(images), len(texts)])
        return U, V


@torch.no_grad()
def initialise(model: DSCMR, generator: torch.Generator) -> None:
    """Draw every weight and bias from U(-1/√F, 1/√F), F the layer's inputs: PyTorch's default,
    which the authors' code leaves unchanged."""
    for layer in model.children():
        bound = layer.in_features**-0.5
        for parameter in (layer.weight, layer.bias):
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)


def length(difference: Tensor, norms: str) -> Tensor:
    """How far apart two matrices of n rows are.

    "frobenius", the paper's formula: ‖D‖_F / n. "sample", the authors' code: the mean over the
    rows of ‖d_i‖₂, which for rows of one length is √n times as much.
    """
    if norms == "frobenius":
        return torch.linalg.vector_norm(difference) / len(difference)
    return torch.linalg.vector_norm(difference, dim=1).mean()


def J1(model: DSCMR, U: Tensor, V: Tensor, Y: Tensor, norms: str) -> Tensor:
    """The discrimination loss in the label space: (1/n)‖PᵀU - Y‖_F + (1/n)‖PᵀV - Y‖_F.

    U, V (n, 1024), Y (n, C) one-hot; a regression to the labels, not a cross-entropy.
    """
    return length(model.P(U) - Y, norms) + length(model.P(V) - Y, norms)


def J2(U: Tensor, V: Tensor, Y: Tensor) -> Tensor:
    """The discrimination loss in the common space: for every pair, the negative log-likelihood that
    it is of one class (S = 1) or not (S = 0), given θ = ½ cos:

        (1/n²) Σ_ij [log(1 + e^θ_ij) - S_ij θ_ij]

    summed over image-image, image-text and text-text pairs, each i with each j. All cosines come
    from one matrix product.
    """
    n, S = len(U), Y @ Y.T
    unit = F.normalize(torch.cat([U, V]))
    theta = 0.5 * unit @ unit.T
    surprise = F.softplus(theta) - S.repeat(2, 2) * theta
    return surprise[:n, :n].mean() + surprise[:n, n:].mean() + surprise[n:, n:].mean()


def J3(U: Tensor, V: Tensor, norms: str) -> Tensor:
    """The modality invariance loss: (1/n)‖U - V‖_F. U, V (n, 1024)."""
    return length(U - V, norms)
