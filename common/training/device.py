"""On which device a run computes, and which number format multiplies fastest there."""

import torch

from common.base.errors import MachineError, UsageError


def choose_device(wanted: str, paper: str, usable: tuple[str, ...]) -> str:
    """
    Raises:
        MachineError: no such device here. UsageError: the paper does not run on it.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MachineError("--device cuda: PyTorch finds no CUDA device here. Use --device cpu.")
    if wanted != "auto" and wanted not in usable:
        raise UsageError(f"{paper} runs on {' or '.join(usable)} only.")
    if wanted == "auto":
        return "cuda" if "cuda" in usable and torch.cuda.is_available() else "cpu"
    return wanted


def fast_precision(device: str) -> torch.dtype:
    """bfloat16 where the device's arithmetic units multiply it, else float32."""
    if device == "cuda":
        native = torch.cuda.get_device_capability() >= (8, 0)
    else:
        has = torch.cpu.get_capabilities()
        native = has.get("avx512_bf16", False) or has.get("amx_bf16", False)
    return torch.bfloat16 if native else torch.float32
