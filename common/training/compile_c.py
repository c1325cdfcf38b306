"""Compiling a C file, once, for papers whose inner loop is too fine-grained for PyTorch.

A compiler may be missing: then there is no library, and the paper's plain
PyTorch code does the same work more slowly.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from common.base import paths
from common.base.progress import warn

# No fused multiply-add: sums then have the same bits whatever vectors a processor has.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-Wno-psabi", "-shared", "-fPIC")
TUNED = ("-march=native", "")  # tried in turn: not every compiler knows the first


@functools.cache
def compile_c(source: Path) -> tuple[ctypes.CDLL, str] | None:
    """The library of one C file and the name of its compiler, or None, having said why.

    Libraries are kept in runs/compiled/, under the hash of source, flags,
    compiler and processor.
    """
    from common.training.provenance import processor_name

    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), "cc")
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        warn("No C compiler (cc, gcc or clang) was found: the same arithmetic runs in PyTorch, many times slower.")
        return None
    name = version.stdout.splitlines()[0]
    key = hashlib.sha256(source.read_bytes() + f"{FLAGS} {name} {processor_name()}".encode()).hexdigest()[:16]
    library = _folder() / f"{source.parent.name}-{source.stem}-{key}.so"
    if not library.exists():
        failure = _build(compiler, source, library)
        if failure:
            warn(f"{compiler} cannot compile {source.name} ({failure}): PyTorch does the work, many times slower.")
            return None
    return ctypes.CDLL(str(library)), f"{source.name} by {name}"


def _folder() -> Path:
    folder = paths.RUNS / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="compiled-"))


def _build(compiler: str, source: Path, library: Path) -> str:
    """Compile to a temporary name and rename. Returns what went wrong, '' if nothing."""
    failure = ""
    for tuned in TUNED:
        temporary = library.with_suffix(f".{os.getpid()}")
        command = [compiler, *FLAGS, *tuned.split(), str(source), "-o", str(temporary)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            os.replace(temporary, library)
            return ""
        failure = (done.stderr.strip().splitlines() or ["no reason given"])[0]
    return failure
