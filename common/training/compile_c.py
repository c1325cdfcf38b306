"""Compiling a C file, once, for papers whose inner loop is too fine-grained for PyTorch.

There may be no compiler, or no folder from which its result may be loaded: then
there is no library, and the paper's plain PyTorch code does the same work more
slowly.
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
    compiler and processor. Where none can be written there, or be loaded from
    there, as from a disk mounted noexec, one is made in the temporary folder.
    """
    from common.training.device import instruction_set
    from common.training.provenance import processor_name

    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), "cc")
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        warn("No C compiler (cc, gcc or clang) was found: the same arithmetic runs in PyTorch, many times slower.")
        return None
    name = next(iter(version.stdout.splitlines()), "a compiler that does not say its name")
    machine = f"{processor_name()} {instruction_set()}"  # on a shared disk, the folder of several machines
    key = hashlib.sha256(source.read_bytes() + f"{FLAGS} {name} {machine}".encode()).hexdigest()[:16]
    library = f"{source.parent.name}-{source.stem}-{key}.so"
    try:
        try:
            return _loaded(compiler, source, paths.RUNS / "compiled" / library), f"{source.name} by {name}"
        except OSError:
            with tempfile.TemporaryDirectory(prefix="compiled-") as folder:  # a loaded library needs its file no more
                return _loaded(compiler, source, Path(folder) / library), f"{source.name} by {name}"
    except OSError as error:
        why = f"{compiler} makes nothing of {source.name} that can be loaded here ({error.strerror or error})"
        warn(f"{why}: PyTorch does the work, many times slower.")
        return None


def _loaded(compiler: str, source: Path, library: Path) -> ctypes.CDLL:
    """The library, built first if it is not there.

    Raises:
        OSError: it cannot be built, written or loaded.
    """
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        _build(compiler, source, library)
    try:
        return ctypes.CDLL(str(library))
    except OSError:
        library.unlink()  # it may be damaged; the next start makes another
        raise


def _build(compiler: str, source: Path, library: Path) -> None:
    """Compile to a temporary name and rename."""
    failure = ""
    for tuned in TUNED:
        temporary = library.with_suffix(f".{os.getpid()}")
        command = [compiler, *FLAGS, *tuned.split(), str(source), "-o", str(temporary)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            os.replace(temporary, library)
            return
        failure = (done.stderr.strip().splitlines() or ["no reason given"])[0]
    raise OSError(failure)
