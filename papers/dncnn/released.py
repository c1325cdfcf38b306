"""The weights that the authors released: how their files are read.

They are Matlab v7.3 files, that is HDF5. `net.layers` is a cell array of layers in
their order, and a convolution's `weights` is one of kernel and bias. A cell is a
reference to what it holds. Batch normalization is merged: every convolution has a bias.
"""

from pathlib import Path

import h5py
import torch
from torch import Tensor

from common.base.errors import UsageError
from common.training.weights import laid_out_as
from papers.dncnn.train import Recipe


def read(path: Path, recipe: Recipe) -> dict[str, Tensor]:
    """The state of a `DnCNN` without batch normalization, for `evaluate`.

    Raises:
        UsageError: the file is laid out in another way, or is not of the recipe's depth.
    """
    # Nobody writes it; and not every disk has locks.
    with laid_out_as(path, "the authors'"), h5py.File(path, locking=False) as file:
        layers = [file[cell] for cell in file["net/layers"][()].flat]
        found = [convolution(file, layer) for layer in layers if text(layer["type"]) == "conv"]
    if len(found) != recipe.depth:
        raise UsageError(f"{path} has {len(found)} convolutions, and the variant {recipe.depth}.")
    state = {}
    for number, (kernel, bias) in enumerate(found):
        # The ReLUs between the convolutions are layers too.
        state |= {f"layers.{2 * number}.weight": kernel, f"layers.{2 * number}.bias": bias}
    return state


def convolution(file: h5py.File, layer: h5py.Group) -> tuple[Tensor, Tensor]:
    """Kernel (out, in, height, width) and bias (out,) as PyTorch has them.

    Matlab's kernel is (height, width, in, out), and HDF5 gives every array with its axes reversed; Matlab drops
    the last axis where it has length 1, that of the only output of the last layer.
    """
    kernel, bias = (torch.from_numpy(file[cell][()]) for cell in layer["weights"][()].flat)
    kernel = kernel.reshape(bias.numel(), -1, *kernel.shape[-2:])
    return kernel.transpose(-1, -2).contiguous(), bias.flatten()


def text(characters: h5py.Dataset) -> str:
    """A Matlab string: UTF-16, one character a row."""
    return characters[()].tobytes().decode("utf-16-le")
