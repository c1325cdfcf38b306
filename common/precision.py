"""Which number format multiplies fastest on a device."""

import torch


def fast_precision(device: str) -> torch.dtype:
    """bfloat16 where the device's arithmetic units multiply it, else float32."""
    if device == "cuda":
        native = torch.cuda.get_device_capability() >= (8, 0)
    else:
        has = torch.cpu.get_capabilities()
        native = has.get("avx512_bf16", False) or has.get("amx_bf16", False)
    return torch.bfloat16 if native else torch.float32
