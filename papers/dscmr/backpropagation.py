"""One step of DSCMR, forward and back, with the chain rule written out.

J and its gradients are those that autograd gets from J1 + λ J2 + η J3 of model.py, and tests check
that the two agree. Written out, they need fewer operations on matrices of the size of U and V: the
cosines of J2 and their gradient are small matrices around two products with U and V, and the
gradients of the large weights are written into memory that is reused.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.dscmr.model import DSCMR


class Backpropagation:
    """A model's losses and gradients, its two branches multiplied in another precision.

    The model's own weights, which the optimiser moves, stay as they are. Unlike `torch.autocast`
    this rounds them once a step, and always into the same memory.
    """

    def __init__(self, model: DSCMR, lam: float, eta: float, norms: str, precision: torch.dtype):
        self.model, self.lam, self.eta, self.norms, self.precision = model, lam, eta, norms, precision
        self.rounded = copy.deepcopy(model).to(precision).requires_grad_(False)
        del self.rounded.P  # the classifier belongs to the losses, which are not rounded
        self.products = {name: torch.empty_like(layer.weight) for name, layer in self.rounded.named_children()}
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    @torch.no_grad()
    def __call__(self, images: Tensor, texts: Tensor, Y: Tensor) -> Tensor:
        """J of a batch, its gradients left with the model's weights.

        Args:
            images, texts: (n, image_size) and (n, text_size).
            Y: (n, C), one-hot.
        """
        images, texts = images.to(self.precision), texts.to(self.precision)
        hidden = self._hidden(images, texts)
        Z = self.rounded.common(hidden)
        J, dZ = self._losses(Z, Y)

        dZ = dZ.to(self.precision)
        self._leave("common", dZ, hidden)
        # The gradient of a ReLU, by the operation that autograd calls for it.
        d_hidden = torch.ops.aten.threshold_backward(dZ @ self.rounded.common.weight, hidden, 0)
        self._leave("image", d_hidden[: len(images)], images)
        self._leave("text", d_hidden[len(images) :], texts)
        return J

    @torch.no_grad()
    def represent(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """As `DSCMR.forward`: U and V in the precision of the model's own weights."""
        Z = self.rounded.common(self._hidden(images.to(self.precision), texts.to(self.precision)))
        U, V = Z.to(self.model.P.weight.dtype).split([len(images), len(texts)])
        return U, V

    @torch.no_grad()
    def follow(self) -> None:
        """Copy the weights that the optimiser has moved."""
        for name, rounded in self.rounded.named_parameters():
            rounded.copy_(self.model.get_parameter(name))

    def _hidden(self, images: Tensor, texts: Tensor) -> Tensor:
        return torch.cat([self.rounded.image(images), self.rounded.text(texts)]).relu_()

    def _leave(self, name: str, gradient: Tensor, inputs: Tensor) -> None:
        """Leave with a layer the gradients that follow from that of its outputs."""
        layer: nn.Linear = self.model.get_submodule(name)
        layer.weight.grad.copy_(torch.mm(gradient.T, inputs, out=self.products[name]))
        torch.sum(gradient, dim=0, dtype=layer.bias.dtype, out=layer.bias.grad)

    def _losses(self, Z: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
        """J and its gradient with respect to Z, which holds U, then V; that of P is left with P."""
        n, P, low = len(Y), self.model.P, Z
        Z, Y = Z.to(P.weight.dtype), Y.repeat(2, 1)

        predictions = P(Z) - Y
        J1_U, d_U = length_and_gradient(predictions[:n], self.norms)
        J1_V, d_V = length_and_gradient(predictions[n:], self.norms)
        d_predictions = torch.cat([d_U, d_V])
        torch.mm(d_predictions.T, Z, out=P.weight.grad)
        torch.sum(d_predictions, dim=0, out=P.bias.grad)

        J2, between = self._J2(Z, low, Y)
        dZ = torch.addmm((between.to(self.precision) @ low).to(Z.dtype), d_predictions, P.weight)

        J3, d_apart = length_and_gradient(Z[:n] - Z[n:], self.norms)
        dZ[:n].add_(d_apart, alpha=self.eta)
        dZ[n:].sub_(d_apart, alpha=self.eta)
        return J1_U + J1_V + self.lam * J2 + self.eta * J3, dZ

    def _J2(self, Z: Tensor, low: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
        """J2, and the symmetric B with ∂(λ J2)/∂Z = B Z, shape (2n, 2n)."""
        n, S = len(Y) // 2, Y @ Y.T
        lengths = torch.linalg.vector_norm(Z, dim=1).clamp_min(1e-12)
        per_length = 1 / (lengths[:, None] * lengths)
        cosine = (low @ low.T).to(Z.dtype) * per_length
        theta = 0.5 * cosine
        # An image-text pair appears in this matrix twice, the others once.
        weight = torch.full_like(theta, 1 / n**2)
        weight[:n, n:] = weight[n:, :n] = 0.5 / n**2
        J2 = ((F.softplus(theta) - S * theta) * weight).sum()

        # The gradient of cos_ij = z_i·z_j / (|z_i| |z_j|) by z_i is z_j / (|z_i| |z_j|) - cos_ij z_i / |z_i|²,
        # and every z appears in a row and in a column.
        d_cosine = self.lam * 0.5 * (theta.sigmoid() - S) * weight
        B = 2 * d_cosine * per_length
        B.diagonal().sub_(2 * (d_cosine * cosine).sum(dim=1) * per_length.diagonal())
        return J2, B


def length_and_gradient(difference: Tensor, norms: str) -> tuple[Tensor, Tensor]:
    """`model.length` of a matrix of n rows and its gradient, 0 where a norm vanishes."""
    n = len(difference)
    if norms == "frobenius":
        norm = torch.linalg.vector_norm(difference)
        value = norm / n
    else:
        norm = torch.linalg.vector_norm(difference, dim=1, keepdim=True)
        value = norm.mean()
    return value, difference / (n * norm.clamp_min(1e-30))
