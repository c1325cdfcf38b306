"""Speed, each job against the straightforward way, in one process and interleaved.

A paper's jobs are in its bench.py: `jobs()` returns a list of `Job`; how time grows is measured in `growth`.
Ratios are of medians; on a shared machine only the ratio means anything.
"""

import datetime
import importlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import click
import torch

from common.base import paths
from common.base.duration import duration
from common.base.errors import UsageError
from common.base.files import write_whole
from common.base.progress import say
from common.base.terminal import print_table
from common.pages.speed import Grown, Speed, Timed
from common.publishing.growth import THREADS, of_tables
from common.training import provenance
from common.training.allocator import keep_freed_memory
from common.training.determinism import make_deterministic
from common.training.device import bfloat16_is_faster, instruction_set

ROUNDS = 7
MATRIX = {"cpu": 1024, "cuda": 8192}  # rows: enough to keep the device busy


@dataclass(frozen=True)
class Job:
    """One thing to time.

    Attributes:
        ours, straightforward: do some work and return how many samples it was.
        flops_per_sample: multiplications and additions that the arithmetic needs.
        threads: how many threads both ways, and the matrix product, may use.
        whole, samples: what a user waits for, and how many samples that is.
        precision: that our way multiplies in; its share is of the matrix rate in that precision.
        device: where both ways work, and the matrix product with them; each waits until its work is done.
    """

    name: str
    ours: Callable[[], int]
    straightforward: Callable[[], int]
    flops_per_sample: float
    threads: int
    whole: str
    samples: int
    precision: torch.dtype = torch.float32
    device: str = "cpu"


def run_benchmarks(papers: list[str], as_json: bool) -> None:
    """Time every job of the papers that have any, as deterministically as training, and print the results.

    Raises:
        UsageError: none has any.
    """
    results = list(_timed(papers))
    if not results:
        raise UsageError(f"{', '.join(papers)}: no bench.py, so there is nothing to time.")
    if as_json:
        _echo_json(results)
        return
    lines = [
        [
            r.paper, r.job, f"{r.ratio:.1f}", f"{r.samples_per_s:,.0f}", f"{r.share:.1%}",
            f"{r.peak_memory_mb:,.0f} MB", f"{r.whole}: {duration(r.whole_s)}",
        ]
        for r in results
    ]  # fmt: skip
    columns = ["paper", "job", "times the plain way", "samples/s", "of matrix rate", "peak memory so far", "in all"]
    print_table(f"Speed, {_instructions()}", columns, lines)


def run_growth(papers: list[str], tables: bool, as_json: bool) -> None:
    """Measure how time grows with the sizes that the papers name, and that of the tables with the number of records,
    and print it."""
    results = list(_grown(papers, tables))
    if as_json:
        _echo_json(results)
        return
    lines = [
        [of.work, of.size, f"{size:,}", f"{seconds:.3g} s"]
        for of in results
        for size, seconds in zip(of.sizes, of.seconds, strict=True)
    ]
    print_table(f"Growth, {_instructions()}", ["work", "its size: number of", "", "takes"], lines)


def _echo_json(results: Sequence[Timed | Grown]) -> None:
    click.echo(json.dumps([result.model_dump() for result in results], indent=1))


def keep_speed(papers: list[str]) -> None:
    """Measure both and keep them in results/speed, for the page, as they come; what was kept of such a machine goes.

    Raises:
        UsageError: the sources are not committed, or git does not say so.
    """
    try:
        commit = provenance.ask_git("rev-parse", "HEAD")
        changed = provenance.ask_git("status", "--porcelain", "--", "common", "papers")
    except provenance.GitFailed as failure:
        raise UsageError(f"bench --keep: git does not tell which commit this is ({failure}).") from None
    if changed:
        raise UsageError(
            "bench --keep: nobody could measure again, as the sources are not committed. Commit them first."
        )
    kept = Speed(
        date=datetime.date.today().isoformat(),
        commit=commit,
        processor=provenance.processor_name(),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else provenance.processor_name(),
        instruction_set=_instructions(),
        limited=_limited(),
        torch=torch.__version__,
        jobs=[],
        growth=[],
    )
    for timed in _timed(papers):
        kept.jobs.append(timed)
        _write(kept)
    for grown in _grown(papers, tables=True):
        kept.growth.append(grown)
        _write(kept)
    say(f"kept in {kept.path().relative_to(paths.ROOT)}; `bash reproduce.sh table` shows it")


def _write(kept: Speed) -> None:
    write_whole(kept.path(), (json.dumps(kept.model_dump(), indent=1) + "\n").encode())


def _instructions() -> str:
    """What our way uses of the processor: those for bfloat16 are named only where they are faster."""
    here = instruction_set()
    return here if bfloat16_is_faster(here, provenance.processor_name()) else here.partition(" with ")[0]


def _limited() -> bool:
    """Whether PyTorch was told to use less of the processor than it has."""
    has = torch.cpu.get_capabilities()
    return has.get("avx512_f", False) and not torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _timed(papers: list[str]) -> Iterator[Timed]:
    _set_up()
    for paper in papers:
        for job in _jobs(paper):
            say(f"timing {paper}: {job.name}")
            yield _time(paper, job)


def _set_up() -> None:
    """As for a training; it serves the straightforward way too."""
    make_deterministic(0)
    keep_freed_memory()


def _grown(papers: list[str], tables: bool) -> Iterator[Grown]:
    _set_up()
    torch.set_num_threads(THREADS)
    growing = [growth for paper in papers for growth in getattr(_module(paper), "growth", list)()]
    for growth in [*growing, *([of_tables()] if tables else [])]:
        say(f"timing {growth.work}: {', '.join(f'{size:,}' for size in growth.sizes)} {growth.size}")
        yield growth.measured()


def _module(paper: str) -> ModuleType | None:
    """The paper's bench.py, where it has one."""
    return importlib.import_module(f"papers.{paper}.bench") if (paths.PAPERS / paper / "bench.py").exists() else None


def _jobs(paper: str) -> list[Job]:
    module = _module(paper)
    return module.jobs() if module else []


def _time(paper: str, job: Job) -> Timed:
    torch.set_num_threads(job.threads)
    ours, straightforward = [], []
    for measured in (False, *[True] * ROUNDS):  # the first round warms up
        seconds = _seconds_per_sample(job.ours), _seconds_per_sample(job.straightforward)
        if measured:
            ours.append(seconds[0])
            straightforward.append(seconds[1])
    rate = 1 / statistics.median(ours)
    return Timed(
        paper=paper,
        job=job.name,
        ratio=statistics.median(straightforward) / statistics.median(ours),
        samples_per_s=rate,
        share=rate * job.flops_per_sample / matrix_rate(job.precision, job.device),
        peak_memory_mb=_peak_memory_mb(job.device),
        whole=job.whole,
        whole_s=job.samples / rate,
        instruction_set=_instructions(),
    )


def _peak_memory_mb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _seconds_per_sample(work: Callable[[], int]) -> float:
    start = time.perf_counter()
    samples = work()
    return (time.perf_counter() - start) / samples


def matrix_rate(precision: torch.dtype, device: str = "cpu") -> float:
    """Floating-point operations per second of a matrix product in this precision."""
    rows = MATRIX[device]
    a, b = (torch.rand(rows, rows).to(device, precision) for _ in range(2))

    def product() -> int:
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        return 1

    seconds = min(_seconds_per_sample(product) for _ in range(10))
    return 2 * rows**3 / seconds
