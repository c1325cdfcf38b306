"""3x3 convolutions with a quarter of the multiplications: winograd.c for PyTorch, in float32 on a CPU.

A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: F(4x4, 3x3). It rounds more
coarsely than the direct way, though far less so than bfloat16: tests allow 2e-4 of a map's standard deviation. Only
first derivatives are there, and only backward.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from common.training.compile_c import compile_c

SOURCE = Path(__file__).with_name("winograd.c")
PADDINGS = ((0, 0), (1, 1))
CHANNELS = 16  # of inputs, and of outputs, there are multiples
MOST_KERNELS = 36_864  # inputs times outputs; transforms of more don't fit into a cache: the direct way is as fast
POINTS = 36  # of a transformed kernel


class WinogradConv2d(nn.Conv2d):
    """Computes by Winograd what is float32 and on a CPU, and anything else as ever."""

    def forward(self, x: Tensor) -> Tensor:
        fit = all(of.dtype == torch.float32 and of.device.type == "cpu" for of in (x, self.weight))
        padded = self.padding == (1, 1)
        if not fit or x.dim() != 4 or not (padded or min(x.shape[2:]) >= 3) or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        y = convolve(x, self.weight, self.bias)
        return y if padded else y[:, :, 1:-1, 1:-1]  # where no window reaches beyond the map


def use_winograd(model: nn.Module, precision: torch.dtype = torch.float32) -> str | None:
    """Put a `WinogradConv2d` in the place of every convolution that it suits, if the model is on a CPU.

    Parameters stay the same, and so do their names. A convolution's hooks are lost.

    Args:
        precision: of the products; nothing is done unless it is float32.

    Returns:
        What was compiled and by what, for the record; None if nothing suits, or there is no compiler.
    """
    suited = [module for module in model.modules() if _suits(module)] if precision == torch.float32 else []
    compiled = _compiled() if suited else None
    if compiled is None:
        return None
    replaced = {direct: _fast(direct) for direct in suited}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # named_children() has a child of two names once
            if child in replaced:
                setattr(parent, name, replaced[child])
    return compiled[1]


def _fast(direct: nn.Conv2d) -> WinogradConv2d:
    fast = WinogradConv2d(
        direct.in_channels, direct.out_channels, 3, padding=int(direct.padding == (1, 1)), device="meta"
    )
    fast.weight, fast.bias = direct.weight, direct.bias
    return fast.train(direct.training)


def _suits(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(module) is nn.Conv2d  # not a class made of it
        and module.weight.device.type == "cpu"
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding in PADDINGS
        and module.padding_mode == "zeros"
        and module.groups == 1
        and module.in_channels % CHANNELS == module.out_channels % CHANNELS == 0
        and module.in_channels * module.out_channels <= MOST_KERNELS
    )


def _compiled() -> tuple[ctypes.CDLL, str] | None:
    return compile_c(SOURCE, "-ffp-contract=fast", threads=True) if sys.platform == "linux" else None


def _library() -> ctypes.CDLL:
    """
    Raises:
        RuntimeError: it cannot be compiled here.
    """
    compiled = _compiled()
    if compiled is None:
        raise RuntimeError("winograd.c is not compiled")
    return compiled[0]


# ---- PyTorch's view of it, for autograd and torch.compile ----------------------------------------------------------


@torch.library.custom_op("reproduce::convolve", mutates_args=(), device_types="cpu")
def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of (N, in, H, W) with (out, in, 3, 3), zeros around the maps: (N, out, H, W), channels-last.

    Raises:
        ValueError: they do not belong together, or are not float32. MemoryError: there is too little.
    """
    return _convolution(x, weight, bias)


@torch.library.custom_op("reproduce::convolve_backward", mutates_args=(), device_types="cpu")
def convolve_backward(dy: Tensor, x: Tensor, weight: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """The gradients of x, which is empty unless it is wanted, and of the weights.

    Raises:
        ValueError: they do not belong together, or are not float32. MemoryError: there is too little.
    """
    dy = dy.contiguous(memory_format=torch.channels_last)
    dx = _convolution(dy, weight, turned=True) if wanted else x.new_empty(0)
    return dx, _weight_gradient(dy, x, weight)


@convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _maps(x, weight.shape[0])


@convolve_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    return _maps(x, weight.shape[1]) if wanted else x.new_empty(0), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x, weight, bias = inputs
    ctx.save_for_backward(x, weight)
    ctx.biased = bias is not None


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
    x, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad[0]
    dx, dw = convolve_backward(dy, x, weight, wanted)
    return dx if wanted else None, dw, dy.sum((0, 2, 3)) if ctx.biased else None


convolve.register_autograd(_backward, setup_context=_keep)


# ---- calls of the library --------------------------------------------------------------------------------------------


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, turned: bool = False) -> Tensor:
    """
    Args:
        turned: from outputs to inputs, with the kernels turned by half a turn, as gradients go.
    """
    outputs, inputs = reversed(weight.shape[:2]) if turned else weight.shape[:2]
    _check(x, weight, inputs)
    per_out, per_in, per_row, per_column = weight.stride()
    start = 0
    if turned:
        start = 2 * (per_row + per_column)
        per_out, per_in, per_row, per_column = per_in, per_out, -per_row, -per_column
    library, threads = _library(), torch.get_num_threads()
    x = x.contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.contiguous()
    U = torch.empty(POINTS, inputs, outputs)
    library.transform_weights(
        _at(weight, start), *_long(per_in, per_out, per_row, per_column), inputs, outputs, _at(U), threads
    )
    y = _maps(x, outputs)
    N, _, H, W = x.shape
    if library.convolve(_at(x), _at(U), _at(bias), _at(y), *_long(N), H, W, inputs, outputs, threads):
        raise MemoryError(f"a convolution of {x.numel():,} values")
    return y


def _weight_gradient(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    _check(x, weight, weight.shape[1])
    _check(dy, weight, weight.shape[0])
    library = _library()
    dy, x = (maps.contiguous(memory_format=torch.channels_last) for maps in (dy, x))
    dw = torch.empty_like(weight)
    per_out, per_in, per_row, per_column = dw.stride()
    N, inputs, H, W = x.shape
    steps = _long(per_in, per_out, per_row, per_column, N)
    if library.weight_gradient(_at(x), _at(dy), _at(dw), *steps, H, W, inputs, dy.shape[1], torch.get_num_threads()):
        raise MemoryError(f"a gradient of {dw.numel():,} weights")
    return dw


def _check(maps: Tensor, weight: Tensor, channels: int) -> None:
    """What the library trusts.

    Raises:
        ValueError: it is not so.
    """
    if any(of.dtype != torch.float32 or of.device.type != "cpu" or of.dim() != 4 for of in (maps, weight)):
        raise ValueError("maps (N, C, H, W) and kernels (out, in, 3, 3) are float32 and on the CPU")
    if weight.shape[2:] != (3, 3) or weight.shape[0] % CHANNELS or weight.shape[1] % CHANNELS:
        raise ValueError(f"kernels of {tuple(weight.shape)}: 3x3, of multiples of {CHANNELS} maps")
    if maps.shape[1] != channels:
        raise ValueError(f"{maps.shape[1]} maps where the kernels have {channels}")


def _maps(x: Tensor, channels: int) -> Tensor:
    """Memory for maps of the size of those of `x`."""
    N, _, H, W = x.shape
    return torch.empty((N, channels, H, W), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _at(tensor: Tensor | None, start: int = 0) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr() + start * tensor.element_size())


def _long(*numbers: int) -> list[ctypes.c_int64]:
    return [ctypes.c_int64(number) for number in numbers]
