"""One deterministic set-up for every entry point, and generators that need no saving.

Every random draw comes from `generator(seed, purpose, ...)`: a fresh generator
whose state is a hash of what it is for. So there is no global random state to
save for a resume, and evaluating in the middle does not disturb training.
"""

import hashlib
import os
import random
from typing import Any

import numpy as np
import torch

SWITCHES = {
    "deterministic_algorithms": True,
    "cudnn_deterministic": True,
    "cudnn_benchmark": False,
    "tf32": False,
    "flush_denormal": False,
}
CUBLAS_WORKSPACE = ":4096:8"
FLAGS: dict[str, bool | str] = {**SWITCHES, "cublas_workspace": CUBLAS_WORKSPACE}


def make_deterministic(seed: int) -> dict[str, bool | str]:
    """Seed Python, NumPy and PyTorch and forbid what is not deterministic.

    Returns the flags as they now stand, for the record. Threads are the caller's
    choice; they are recorded beside the flags.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = CUBLAS_WORKSPACE
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    # The same switch as torch.use_deterministic_algorithms, without its import of torch.compile's
    # compiler, which takes seconds.
    torch.set_deterministic_debug_mode("error" if SWITCHES["deterministic_algorithms"] else "default")
    # A debugging aid that comes with it and costs time in every step: it fills every new tensor with NaN.
    deterministic: Any = torch.utils.deterministic  # a module that has this switch only at run time
    deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.deterministic = SWITCHES["cudnn_deterministic"]
    torch.backends.cudnn.benchmark = SWITCHES["cudnn_benchmark"]
    torch.backends.cudnn.allow_tf32 = SWITCHES["tf32"]
    torch.backends.cuda.matmul.allow_tf32 = SWITCHES["tf32"]
    torch.set_flush_denormal(SWITCHES["flush_denormal"])
    return current_flags()


def current_flags() -> dict[str, bool | str]:
    """The flags PyTorch now has, under the names of `FLAGS`. It does not tell whether it flushes denormal numbers,
    so that is tried."""
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32,
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
        "flush_denormal": not torch.tensor(1e-40) * torch.ones(()),
    }


def generator(seed: int, purpose: str, epoch: int = 0, index: int = 0) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments."""
    name = f"{seed}/{purpose}/{epoch}/{index}".encode()
    state = int.from_bytes(hashlib.sha256(name).digest()[:8], "little")
    return torch.Generator().manual_seed(state - 2**63)
