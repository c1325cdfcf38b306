"""Memory that PyTorch frees on a CPU, and wants again in the next step.

glibc gives the freed maps of a large network, or of a small one behind a large dataset, back to the system, which
fills them with zeros, page by page, when they are asked for again. So it is told to keep them. This changes no bits,
but where sizes vary a process may hold more memory at its peak.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the numbers in malloc.h
NEVER = -1
LARGEST = 256 * 2**20  # bytes: maps of a batch are kept, a whole dataset turned into floats is given back
LARGEST_ONCE = 32 * 2**20  # that older versions of glibc take


def keep_freed_memory() -> None:
    """Have this process keep what it frees, up to `LARGEST` at a time. Does nothing where the C library isn't glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and (mallopt(MMAP_THRESHOLD, LARGEST) or mallopt(MMAP_THRESHOLD, LARGEST_ONCE)):
        mallopt(TRIM_THRESHOLD, NEVER)  # alone, it would hold the other threshold where it begins, at little
