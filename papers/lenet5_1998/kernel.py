"""kernel.c from Python: many one-pattern updates in one call."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from common.training.compile_c import compile_c
from papers.lenet5_1998.model import LeNet5, Loss
from papers.lenet5_1998.sdlm import Curvature

SOURCE = Path(__file__).with_name("kernel.c")
FLAGS = ("-ffp-contract=off",)  # no fused multiply-add: sums have the same bits whatever vectors a processor has


class _Options(ctypes.Structure):
    """`Options` of kernel.c."""

    _fields_ = [
        ("squash_convolutions", ctypes.c_int),
        ("subsample_mean", ctypes.c_int),
        ("shared_coefficient", ctypes.c_int),
        ("quadratic_top", ctypes.c_int),
        ("discriminative", ctypes.c_int),
        ("j", ctypes.c_float),
    ]


class Kernel:
    """The compiled arithmetic of one network and loss. Runs on one thread."""

    def __init__(self, library: ctypes.CDLL, compiler: str, model: LeNet5, loss: Loss, curvature: Curvature):
        self.compiler = compiler
        self._library = library
        library.lenet5_updates.restype = ctypes.c_double
        self._centres = model.output.centres.contiguous()
        self._options = _Options(
            model.squash_convolutions, model.S2.mean, curvature.shared_coefficient, curvature.top == "quadratic",
            loss.equation == "eq9", loss.j,
        )  # fmt: skip

    def updates(
        self, weights: Tensor, rates: Tensor, patterns: Tensor, labels: Tensor, order: Tensor
    ) -> tuple[float, int]:
        """One update for each pattern that `order` names, in place.

        Args:
            weights, rates: (60000,) float32. patterns: (N, 32, 32) float32.
            labels: (N,) int64. order: (M,) int64.

        Returns:
            The sum of the right classes' penalties, and the number of mistakes, each taken before its update.
        """
        mistakes = ctypes.c_int64(0)
        tensors = [self._pointer(tensor) for tensor in (weights, rates, patterns, labels, order)]
        total = self._library.lenet5_updates(
            *tensors, ctypes.c_int64(len(order)), self._pointer(self._centres),
            ctypes.byref(self._options), ctypes.byref(mistakes),
        )  # fmt: skip
        return total, mistakes.value

    def classify(self, weights: Tensor, patterns: Tensor) -> Tensor:
        """The classes of `patterns` (N, 32, 32). Shape (N,), int64."""
        classes = torch.empty(len(patterns), dtype=torch.int64)
        self._library.lenet5_classify(
            self._pointer(weights), self._pointer(patterns), ctypes.c_int64(len(patterns)),
            self._pointer(self._centres), ctypes.byref(self._options), self._pointer(classes),
        )  # fmt: skip
        return classes

    def second_derivatives(self, weights: Tensor, patterns: Tensor) -> Tensor:
        """h_kk over `patterns` (N, 32, 32). Shape (60000,)."""
        h = torch.empty_like(weights)
        self._library.lenet5_curvature(
            self._pointer(weights), self._pointer(patterns), ctypes.c_int64(len(patterns)),
            self._pointer(self._centres), ctypes.byref(self._options), self._pointer(h),
        )  # fmt: skip
        return h

    @staticmethod
    def _pointer(tensor: Tensor) -> ctypes.c_void_p:
        if not tensor.is_contiguous():
            raise ValueError("the kernel reads contiguous tensors only")
        return ctypes.c_void_p(tensor.data_ptr())


def build(model: LeNet5, loss: Loss, curvature: Curvature) -> Kernel | None:
    """The kernel, or None where no C compiler is available."""
    compiled = compile_c(SOURCE, *FLAGS)
    return Kernel(*compiled, model, loss, curvature) if compiled else None
