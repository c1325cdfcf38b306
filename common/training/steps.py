"""A training step made fast: compiled by torch.compile on a CPU, replayed as a CUDA graph on a GPU.

The step as it is written is the reference. A CUDA graph of it holds the very same kernels, and gives its bits; what
torch.compile makes of it rounds differently. Where neither can be had, the step runs as it is written.
"""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config

from common.base.progress import say, warn
from common.training.batch_norm import use_compiled_norms

Batch = tuple[Tensor, ...]
Loss = Callable[..., Batch]  # from a batch to the loss, and whatever else is wanted of it
Step = Callable[..., Batch]  # gives the same, and leaves the gradient of the loss in the model's parameters

# A kernel that writes where it reads waits for its own stores when 16 maps of bfloat16 fill half a vector.
COMPILER: dict[str, str | int | bool | Callable] = {"inplace_buffers": False}
# Left to itself, the compiler keeps the signs of the last ReLU's maps as bytes, which it writes and reads slowly.
# They follow from what is kept anyway.
KEPT_FOR_THE_WAY_BACK = {"ban_recompute_used_far_apart": False}
WARM_UPS = 3  # before a graph is captured, as PyTorch's notes have it: libraries set themselves up in them


def plain_step(loss: Loss, model: nn.Module) -> Step:
    """The step as it is written."""

    def step(*batch: Tensor) -> Batch:
        model.zero_grad()
        value, *others = loss(*batch)
        value.backward()
        return value.detach(), *others

    return step


def gradient_of(model: nn.Module) -> Tensor:
    """The gradients of all parameters as one vector, which several processes add up at once."""
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def put_gradient(model: nn.Module, gradient: Tensor) -> None:
    """Write a vector of `gradient_of` back to the parameters."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    for kept, new in zip(gradients, gradient.split([kept.numel() for kept in gradients]), strict=True):
        kept.copy_(new.view(kept.shape))


def fast_step(
    loss: Loss, model: nn.Module, examples: Iterable[Batch], compiled: bool = True
) -> tuple[Step, str | None]:
    """The fastest step that can be had here, and how it was made, for the record: None if it is the plain one.

    Each shape that a batch can have is prepared by itself, whatever came before, so that a resumed run uses the very
    kernels that it would have used; and all of them now, so that a failure cannot come in the middle of a run.

    Args:
        loss: it calls the model, and waits for nothing that a GPU computes.
        examples: a batch of each shape, on the device that trains. The model is left as it was.
        compiled: whether compiling is worth its time on a CPU, some minutes.
    """
    on_gpu = next(model.parameters()).is_cuda
    if not (on_gpu or compiled):
        return plain_step(loss, model), None
    before = copy.deepcopy(model.state_dict())
    try:
        return (_captured if on_gpu else _compiled)(loss, model, examples)
    except (RuntimeError, OSError) as error:  # the compiler's own errors are RuntimeErrors
        reason = next(filter(None, (line.strip() for line in str(error).splitlines())), type(error).__name__)
        how = "a CUDA graph" if on_gpu else "torch.compile"
        warn(f"{how} cannot be used ({reason}): the training step runs as it is written, and slower.")
        return plain_step(loss, model), None
    finally:
        model.load_state_dict(before)
        model.zero_grad()


def _compiled(loss: Loss, model: nn.Module, examples: Iterable[Batch]) -> tuple[Step, str]:
    say("compiling the training step: this may take some minutes the first time")
    use_compiled_norms(model)
    torch.compiler.reset()  # what an earlier run in this process compiled counts towards a limit
    step = plain_step(torch.compile(loss, fullgraph=True, dynamic=False, options=COMPILER), model)
    with functorch_config.patch(KEPT_FOR_THE_WAY_BACK):
        for batch in examples:
            step(*batch)
    return step, f"training step by torch.compile and {_compiler()}"


def _compiler() -> str:
    """The name and version of the C++ compiler that torch.compile uses."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True)
    return next(iter(said.stdout.splitlines()), "a compiler that does not say its name")


def _captured(loss: Loss, model: nn.Module, examples: Iterable[Batch]) -> tuple[Step, str]:
    graphs = {batch[0].shape: CapturedStep(plain_step(loss, model), model, batch) for batch in examples}
    return lambda *batch: graphs[batch[0].shape](*batch), "training step as a CUDA graph"


class CapturedStep:
    """A step on batches of one shape, as one CUDA graph: a single call starts its hundreds of kernels.

    What it returns is overwritten by the next batch.
    """

    def __init__(self, step: Step, model: nn.Module, example: Batch):
        self.batch = [tensor.clone() for tensor in example]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                step(*self.batch)
        torch.cuda.current_stream().wait_stream(stream)
        model.zero_grad()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = step(*self.batch)
        self.gradients = [(parameter, parameter.grad) for parameter in model.parameters()]

    def __call__(self, *batch: Tensor) -> Batch:
        for kept, new in zip(self.batch, batch, strict=True):
            kept.copy_(new)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.result
