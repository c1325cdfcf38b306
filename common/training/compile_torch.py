"""Compiling a training step with torch.compile, where that works.

On a CPU it needs a C++ compiler. Where there is none, the step runs as it is written, which is the reference.
"""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from common.base.progress import say, warn

Step = Callable[..., tuple[Tensor, ...]]


def compile_step(step: Step, model: nn.Module, examples: Iterable[tuple[Tensor, ...]]) -> tuple[Step, str | None]:
    """The step compiled, and by what, for the record; or the step itself and None, having said why.

    Each shape that a batch can have is compiled by itself, whatever came before, so that a resumed run uses the very
    kernels that it would have used; and all of them now, so that a failure cannot come in the middle of a run.

    Args:
        step: from a batch to the loss, whose gradient is taken, and anything else; it calls the model.
        examples: a batch of each shape, as the step takes it. The model is left as it was.
    """
    say("compiling the training step: this may take some minutes the first time")
    torch.compiler.reset()  # what an earlier run in this process compiled counts towards a limit
    compiled = torch.compile(step, fullgraph=True, dynamic=False)
    before = copy.deepcopy(model.state_dict())
    try:
        for batch in examples:
            compiled(*batch)[0].backward()
    except (RuntimeError, OSError) as error:  # the compiler's own errors are RuntimeErrors
        reason = next(filter(None, (line.strip() for line in str(error).splitlines())), type(error).__name__)
        warn(f"torch.compile cannot be used ({reason}): the training step runs uncompiled, and slower.")
        return step, None
    finally:
        model.load_state_dict(before)
        model.zero_grad()
    return compiled, f"training step by torch.compile and {_compiler()}"


def _compiler() -> str:
    """The name and version of the C++ compiler that torch.compile uses."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True)
    return said.stdout.splitlines()[0]
