"""What a process frees it keeps, for its next step."""

import platform
import resource
import subprocess
import sys

import pytest

from common.base import paths

STEPS = """
import resource, sys, torch
from common.training.allocator import keep_freed_memory

def step():  # of 16 MiB, 32 MiB, and 64 MiB, all freed at its end
    maps = [torch.ones(4 * 2**20 * size) for size in (1, 2, 4)]

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(8):  # what it keeps is cut to measure in the first few
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 112 * 2**20 // resource.getpagesize()


def new_pages(how: str) -> int:
    """That three steps ask the system for."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True, cwd=paths.ROOT
    )
    return int(done.stdout)


def takes_large_pieces() -> bool:
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= (2, 35)


@pytest.mark.skipif(not takes_large_pieces(), reason="the C library is not glibc, or an old one")
def test_what_a_step_frees_the_next_one_has_without_asking_the_system():
    kept = new_pages("keep")
    assert kept < PAGES / 20
    assert new_pages("give back") > 10 * kept  # or there would be nothing to mend
