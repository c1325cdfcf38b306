"""Compiling a C file, once, for inner loops that PyTorch does not have.

There may be no compiler, or no folder from which its result may be loaded: then
there is no library, and PyTorch does the same work more slowly.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from common.base import paths
from common.base.progress import warn

FLAGS = ("-std=gnu11", "-O3", "-Wno-psabi", "-shared", "-fPIC")


@functools.cache
def compile_c(source: Path, *flags: str, threads: bool = False) -> tuple[ctypes.CDLL, str] | None:
    """The library of one C file and the name of its compiler, or None, having said why.

    Libraries are kept in runs/compiled/, under the hash of source, flags,
    compiler and processor. Where none can be written there, or be loaded from
    there, as from a disk mounted noexec, one is made in the temporary folder.

    Args:
        flags: of the compiler, besides those for all files and for this processor.
        threads: with the OpenMP that PyTorch for Linux comes with, that of gcc; there is no library without.
    """
    from common.training.device import instruction_set
    from common.training.provenance import processor_flags, processor_name

    asked = os.environ.get("CC")
    compiler = asked or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), "cc")
    try:
        command = shlex.split(compiler)
        version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    except (OSError, ValueError, subprocess.CalledProcessError):
        why = f"CC={asked} does not start" if asked else "No C compiler (cc, gcc or clang) was found"
        warn(f"{why}: PyTorch does the work of {source.name}, more slowly.")
        return None
    name = next(iter(version.stdout.splitlines()), "a compiler that does not say its name")
    if threads and "clang" in name:
        warn(f"{source.name} needs gcc, and this is {name}: PyTorch does the work, more slowly.")
        return None
    options = _tuned(instruction_set())
    if threads:
        options = [[*options[0], "-fopenmp"]]
    # On a shared disk, the folder of several machines, whose processors may have one name and different instructions.
    machine = f"{processor_name()} {instruction_set()} {processor_flags()}"
    key = hashlib.sha256(source.read_bytes() + f"{FLAGS} {flags} {options} {name} {machine}".encode()).hexdigest()[:16]
    library = f"{source.parent.name}-{source.stem}-{key}.so"
    commands = [[*command, *FLAGS, *flags, *tuned, str(source)] for tuned in options]
    try:
        try:
            return _loaded(commands, paths.RUNS / "compiled" / library), f"{source.name} by {name}"
        except OSError:
            with tempfile.TemporaryDirectory(prefix="compiled-") as folder:  # a loaded library needs its file no more
                return _loaded(commands, Path(folder) / library), f"{source.name} by {name}"
    except OSError as error:
        why = f"{compiler} makes nothing of {source.name} that can be loaded here ({error.strerror or error})"
        warn(f"{why}: PyTorch does the work, more slowly.")
        return None


def _tuned(instructions: str) -> list[list[str]]:
    """Options for this processor, as far as PyTorch uses it, to be tried in turn: not every compiler has the first."""
    from common.training.provenance import X86

    if platform.machine() not in X86 or instructions.startswith("AVX512"):
        return [["-march=native"], []]
    return [["-march=native", "-mno-avx512f"], []] if instructions == "AVX2" else [[]]


def _loaded(commands: list[list[str]], library: Path) -> ctypes.CDLL:
    """The library, built first if it is not there.

    Raises:
        OSError: it cannot be built, written or loaded.
    """
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        _build(commands, library)
    try:
        return ctypes.CDLL(str(library))
    except OSError:
        library.unlink(missing_ok=True)  # it may be damaged; the next start makes another
        raise


def _build(commands: list[list[str]], library: Path) -> None:
    """Compile to a temporary name and rename. The commands are tried in turn."""
    failure = ""
    for command in commands:
        temporary = library.with_suffix(f".{os.getpid()}")
        done = subprocess.run([*command, "-o", str(temporary)], capture_output=True, text=True)
        if done.returncode == 0:
            os.replace(temporary, library)
            return
        failure = (done.stderr.strip().splitlines() or ["no reason given"])[0]
    raise OSError(failure)
