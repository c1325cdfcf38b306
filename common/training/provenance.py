"""Where a number comes from: hashes of recipe and sources, the commit, the machine."""

import ast
import dataclasses
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from common.base import paths
from common.base.schema import Checked

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


X86 = ("x86_64", "AMD64")  # as platform.machine() names them

# What a result's last bits may depend on besides recipe, data, sources and what was compiled.
LIBRARIES = ("torch", "numpy", "scipy", "scikit_learn", "pillow")
MACHINE = ("processor", "instruction_set", "device", "threads", "processes", *LIBRARIES)


class Environment(Checked):
    """What a result may depend on besides the sources. An allow-list: no host, no user."""

    python: str
    torch: str
    numpy: str
    scikit_learn: str | None = None  # these five are not in the first records
    scipy: str | None = None
    pillow: str | None = None
    instruction_set: str | None = None
    processes: int = 1  # that trained together, each on a device of its own
    system: str
    processor: str
    device: str
    threads: int  # of each process
    precision: str
    compiled: str | None  # what was compiled and by what, None for eager PyTorch
    deterministic: dict[str, bool | str]


def differing(one: Environment, other: Environment, parts: Iterable[str]) -> list[str]:
    """Of these parts those that differ: 'threads 2, not 1'. Of what one of them does not know, nothing is said."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in parts}
    unknown = {name for name in LIBRARIES if None in pairs.get(name, ())}
    return [
        f"{name.replace('_', ' ')} {a}, not {b}" for name, (a, b) in pairs.items() if a != b and name not in unknown
    ]


def hash_of(content: object) -> str:
    """sha256 of plain content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def recipe_hash(recipe: "DataclassInstance") -> str:
    return hash_of(dataclasses.asdict(recipe))


def source_files(paper: str, root: Path | None = None) -> list[Path]:
    """What makes a paper's numbers: its train.py and eval.py, released.py where it has one, everything that
    these import from its own folder and from common, and the C files in its folder.

    Args:
        root: of a copy of the repository, as it was at another commit.  [default: this repository]
    """
    root = root or paths.ROOT
    folder = root / "papers" / paper
    waiting = [folder / "train.py", folder / "eval.py", *folder.glob("released.py")]
    found: set[Path] = set(folder.glob("*.c"))
    while waiting:
        file = waiting.pop()
        if file not in found:
            found |= {file, *file.parent.glob(f"{file.stem}.c")}
            waiting += _imported(file, paper, root)
    return sorted(found)


def _imported(file: Path, paper: str, root: Path) -> list[Path]:
    names = _imported_names(file.read_text(encoding="utf-8"), file.relative_to(root).parts)
    ours = [name for name in names if name.startswith(("common.", f"papers.{paper}."))]
    files = [root / (name.replace(".", "/") + ".py") for name in ours]
    return [path for path in files if path.exists()]


@cache
def _imported_names(source: str, place: tuple[str, ...]) -> list[str]:
    """What a module imports, in full names; a command asks for the same modules several times."""
    names = []
    tree = ast.parse(source)
    # What a module does when it is run as a command is not part of what makes the numbers.
    tree.body = [node for node in tree.body if not _asks_for_main(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            package = place[: -node.level] if node.level else ()
            module = ".".join([*package, *filter(None, [node.module])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def _asks_for_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def source_hash(paper: str, root: Path | None = None) -> str:
    """One hash over the names and the content of `source_files`."""
    digest = hashlib.sha256()
    for file in source_files(paper, root):
        name = str(file.relative_to(root or paths.ROOT))
        digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def code(paper: str) -> dict:
    """What a record says about the sources: `commit`, whether they are `committed` there, and their hash."""
    head, committed = commit(paper)
    return {"commit": head, "committed": committed, "sources": source_hash(paper)}


def commit(paper: str) -> tuple[str | None, bool]:
    """The checked-out commit, None where git does not tell, and whether the paper's sources are as committed there."""
    try:
        return ask_git("rev-parse", "HEAD"), not _changed(paper)
    except GitFailed:
        return None, False


def why_not_committed(paper: str) -> str:
    """Why a record that is made now could not be published, in git's own words where git does not tell; '' if it
    could."""
    try:
        head, changed = ask_git("rev-parse", "HEAD"), _changed(paper)
    except GitFailed as failure:
        return f"git does not tell which commit this is ({failure})"
    return f"{changed.splitlines()[0].split()[-1]} is not as in commit {head[:7]}" if changed else ""


def _changed(paper: str) -> str:
    """What git has to say about sources that are not as committed: a line each. One that git was told to ignore, such
    as in a copy inside another repository, is not committed either."""
    return ask_git("status", "--porcelain", "--ignored", "--", *(str(file) for file in source_files(paper)))


class GitFailed(Exception):
    """In git's own words, or those of the system where there is no git."""


def git(*words: str) -> str | None:
    """What git says about this repository, None where it fails."""
    try:
        return ask_git(*words)
    except GitFailed:
        return None


def ask_git(*words: str) -> str:
    """What git says about this repository.

    Raises:
        GitFailed: it says that something is wrong, or is not there.
    """
    try:
        done = subprocess.run(["git", *words], cwd=paths.ROOT, capture_output=True, text=True, encoding="utf-8")
    except OSError as error:
        raise GitFailed(f"{error.strerror}: git") from None
    if done.returncode:
        raise GitFailed(" ".join(done.stderr.split()))
    return done.stdout.strip()


def environment(
    device: str, threads: int, precision: str, compiled: str | None, flags: dict[str, bool | str], processes: int = 1
) -> Environment:
    import numpy
    import torch

    from common.training.device import instruction_set

    model = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=numpy.__version__,
        scikit_learn=metadata.version("scikit-learn"),
        scipy=metadata.version("scipy"),
        pillow=metadata.version("pillow"),
        instruction_set=instruction_set(),
        processes=processes,
        system=f"{platform.system()} {platform.machine()}",
        processor=processor_name(),
        device=model,
        threads=threads,
        precision=precision,
        compiled=compiled,
        deterministic=flags,
    )


def processor_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def processor_flags() -> str:
    """Its instructions, in Linux' words; empty where it does not tell."""
    return _cpuinfo("flags") or _cpuinfo("Features")


def _cpuinfo(name: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(name):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""
