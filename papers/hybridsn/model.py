"""HybridSN, layer by layer as Table I has it.

A window of the scene is a small cube: rows, columns, and the spectrum as the
third axis, in the order the paper writes its kernels (3x3x7 means seven bands).
Tensors are kept channels-last; then the reshape of Table I, which puts (band,
filter) into one axis, filter fastest, moves nothing in memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.errors import UsageError

DROPOUT = 0.4  # Table I
KERNELS_3D = ((3, 3, 7), (3, 3, 5), (3, 3, 3))  # rows, columns, bands (Sec. II)
SMALLEST_WINDOW = 9  # four convolutions take two pixels each
LARGEST_WINDOW = 99  # far beyond the paper's 25: the first dense layer has nearly thirty times the weights


class HybridSN(nn.Module):
    """Three 3-D convolutions, one 2-D convolution, three dense layers (Table I).

    Args:
        window: side of the square window in pixels.
        bands: principal components kept.
        classes: outputs.

    Raises:
        UsageError: as in `check_sizes`.
    """

    smallest_bands = 13  # three convolutions take 6, 4 and 2 bands

    def __init__(self, window: int, bands: int, classes: int):
        super().__init__()
        self.check_sizes(window, bands)
        side = window - 8  # after four 3x3 kernels without padding
        maps = self.add_convolutions(bands)
        self.dense_1 = nn.Linear(maps * side * side, 256)
        self.dense_2 = nn.Linear(256, 128)
        self.dense_3 = nn.Linear(128, classes)
        for layer in self.children():
            if isinstance(layer, nn.Conv3d):
                layer.to(memory_format=torch.channels_last_3d)
            elif isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)

    def add_convolutions(self, bands: int) -> int:
        """Returns the number of maps, (side, side) each, that the last of them gives."""
        spectral = bands - 12
        self.conv3d_1 = nn.Conv3d(1, 8, KERNELS_3D[0])
        self.conv3d_2 = nn.Conv3d(8, 16, KERNELS_3D[1])
        self.conv3d_3 = nn.Conv3d(16, 32, KERNELS_3D[2])
        self.conv2d_1 = nn.Conv2d(32 * spectral, 64, 3)
        return 64

    def convolve(self, x: Tensor) -> Tensor:
        """Windows (N, 1, window, window, bands) to maps (N, maps, side, side)."""
        x = F.relu(self.conv3d_1(x), inplace=True)
        x = F.relu(self.conv3d_2(x), inplace=True)
        x = F.relu(self.conv3d_3(x), inplace=True)
        return F.relu(self.conv2d_1(reshape_1(x)), inplace=True)

    def forward(self, x: Tensor, draw: torch.Generator | None = None) -> Tensor:
        """
        Args:
            x: windows (N, 1, window, window, bands).
            draw: where dropout takes its random numbers from. Used, and needed, in training
                mode only: at test time there is no dropout.

        Returns:
            Logits (N, classes); the softmax of Table I is in the loss.
        """
        x = self.convolve(x)
        x = x.permute(0, 2, 3, 1).flatten(1)  # flatten_1: channels fastest, as they lie
        x = F.relu(self.dense_1(x))
        x = dropout(x, draw) if self.training else x
        x = F.relu(self.dense_2(x))
        x = dropout(x, draw) if self.training else x
        return self.dense_3(x)

    @classmethod
    def check_sizes(cls, window: int, bands: int) -> None:
        """
        Raises:
            UsageError: the kernels do not fit a window of this side, or this number of bands.
        """
        if not SMALLEST_WINDOW <= window <= LARGEST_WINDOW or window % 2 == 0:
            raise UsageError(f"--window {window}: an odd number from {SMALLEST_WINDOW} to {LARGEST_WINDOW}.")
        if bands < cls.smallest_bands:
            raise UsageError(f"--components {bands}: {cls.smallest_bands} or more.")


def reshape_1(x: Tensor) -> Tensor:
    """Feature maps (N, filters, rows, columns, bands) to (N, bands * filters, rows, columns)."""
    return x.permute(0, 2, 3, 4, 1).flatten(3).permute(0, 3, 1, 2)


def dropout(x: Tensor, draw: torch.Generator) -> Tensor:
    """Zero a share `DROPOUT` of the values and scale up the others.

    The random numbers come from a generator on the CPU, never from PyTorch's global state.
    """
    if draw is None:
        raise ValueError("in training mode dropout needs a generator")
    kept = torch.rand(x.shape, generator=draw) >= DROPOUT
    return x * kept.to(x.device) / (1 - DROPOUT)


@torch.no_grad()
def initialise(model: HybridSN, draw: torch.Generator) -> None:
    """Glorot-uniform weights and zero biases, as Keras gives them.

    The paper says "randomly initialised"; this is what the authors' code has.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        else:
            # Drawn in the shape's own order, whatever the memory format.
            parameter.copy_(nn.init.xavier_uniform_(torch.empty(parameter.shape), generator=draw))
