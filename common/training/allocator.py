"""Memory that PyTorch frees on a CPU, and wants again in the next step.

glibc gives freed maps back to the system, which fills them with zeros, page by page, when they are next asked for:
for a small network a sixth of a step, and more for a larger one. So it is told to keep them. This changes no bits.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the numbers in malloc.h
NEVER = -1
LARGEST = 256 * 2**20  # bytes: maps of a batch are kept, a whole dataset turned into floats is given back


def keep_freed_memory() -> None:
    """Have this process keep what it frees, up to `LARGEST` at a time. Does nothing where the C library isn't glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, NEVER)
