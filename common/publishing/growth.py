"""How time grows with the size of some work.

A paper's own are in its bench.py: `growth()` returns a list of `Growth`. That of the tables with the number of
published records is of no paper, and here.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from common.base import paths
from common.base.errors import MachineError, UsageError, UserError
from common.pages.speed import Expected, Grown
from common.training.records import read_record

ROUNDS = 3
THREADS = 2
RECORDS = (10, 100, 1000, 10_000)
TABLES = """
import time
from common.pages.tables import tables
start = time.perf_counter()
tables()
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Growth:
    """Some work of several sizes.

    Attributes:
        work: what is done.
        size: what its sizes are numbers of.
        seconds: how long it takes at one of them.
        expected: how it should grow if nothing but the work itself took time.
    """

    work: str
    size: str
    sizes: tuple[int, ...]
    seconds: Callable[[int], float]
    expected: Expected = "proportional"

    def measured(self) -> Grown:
        seconds = [self.seconds(size) for size in self.sizes]
        return Grown(work=self.work, size=self.size, sizes=list(self.sizes), seconds=seconds, expected=self.expected)


def typical_seconds(work: Callable[[], object]) -> float:
    """The median over rounds, after one that warms up."""
    taken = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def seconds_of_command(*words: str) -> float:
    """From the start to the end of a command of a paper, as a user waits for it, on the stand-in and a CPU."""
    with tempfile.TemporaryDirectory() as runs:
        start = time.perf_counter()
        _command(*words, runs=runs)
        return time.perf_counter() - start


def seconds_a_sample(*words: str) -> float:
    """Of the training alone, in a command of a paper that trains one seed on the stand-in and a CPU."""
    with tempfile.TemporaryDirectory() as runs:
        _command(*words, runs=runs)
        (file,) = Path(runs).rglob("record.json")
        return 1 / read_record(file).times.samples_per_second


def _command(*words: str, runs: str) -> None:
    processes = int(words[words.index("--nproc") + 1]) if "--nproc" in words else 1
    standin = ("--device", "cpu", "--data", "standin", "--runs-dir", runs)
    _run("-m", "common", *words, *standin, threads=max(1, THREADS // processes))


def of_tables() -> Growth:
    return Growth("all tables and the page", "published records", RECORDS, _seconds_of_tables)


def _seconds_of_tables(records: int) -> float:
    """In a copy of this repository, with every published record as often as it takes, each under a seed of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in (paths.ROOT / "common", paths.PAPERS, paths.RESULTS):
            shutil.copytree(part, root / part.name, ignore=shutil.ignore_patterns("__pycache__", "seed-*"))
        shutil.copy(paths.ROOT / "README.md", root)
        for path, content in islice(_copies(), records):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
        return float(_run("-c", TABLES, root=root))


def _copies() -> Iterator[tuple[Path, dict]]:
    """Records without end, by their places: first seed 0 of each variant and edition, then seed 1, and so on.

    Raises:
        UsageError: there is nothing to copy.
    """
    groups: dict[Path, list[dict]] = {}
    for path in sorted(paths.RECORDS.rglob("seed-*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        groups.setdefault(path.parent.relative_to(paths.ROOT), []).append(content)
    if not groups:
        raise UsageError("The growth of the tables is measured on copies of the published records, and there are none.")
    for seed in count():
        for folder, records in groups.items():
            yield folder / f"seed-{seed}.json", records[seed % len(records)] | {"seed": seed}


def _run(*words: str, root: Path = paths.ROOT, threads: int = THREADS) -> str:
    """What Python prints when it is started with these words. Of several processes each has as many threads.

    Raises:
        UserError: it failed; the message and the exit code are its own.
    """
    environment = os.environ | {"PYTHONPATH": paths.python_path(root), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-P", *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        failed = UserError(said[-1] if said else f"{' '.join(words)} stopped with exit code {done.returncode}.")
        failed.code = done.returncode if done.returncode > 0 else MachineError.code  # below 0: killed by a signal
        raise failed
    return done.stdout
