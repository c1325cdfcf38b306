"""Which device a run computes on, and the number format in which that multiplies fastest."""

import torch

from common.base.errors import MachineError, UsageError
from common.training.provenance import processor_name


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
    """What "fast" means: bfloat16 where the device multiplies it faster than float32, else float32."""
    if device == "cuda":
        faster = torch.cuda.get_device_capability() >= (8, 0)
    else:
        faster = bfloat16_is_faster(instruction_set(), processor_name())
    return torch.bfloat16 if faster else torch.float32


def bfloat16_is_faster(instructions: str, processor: str) -> bool:
    """Whether a processor multiplies bfloat16 faster than float32; known by its name, not timed, as bits hang on it.

    Intel's have AMX for it. Their `avx512_bf16` alone (Cooper Lake, or AMX hidden by a virtual machine) takes longer
    than float32, where AMD's takes less.

    Args:
        instructions: as `instruction_set` gives them. processor: its model name.
    """
    units = instructions.partition(" with ")[2]
    return "amx_bf16" in units or ("avx512_bf16" in units and "Intel" not in processor)


def instruction_set() -> str:
    """What PyTorch uses of the processor: 'AVX2', 'AVX512 with avx512_bf16 and amx_bf16'.

    Two processors of the same name may differ in it, and so may the last bits of a sum.
    """
    used = torch.backends.cpu.get_cpu_capability()
    units = _bfloat16_units()
    return f"{used} with {' and '.join(units)}" if units else used


def _bfloat16_units() -> list[str]:
    """Empty where PyTorch is limited to less than AVX-512, whatever the processor has."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return []
    has = torch.cpu.get_capabilities()
    return [name for name in ("avx512_bf16", "amx_bf16") if has.get(name, False)]


def precision_name(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")
