"""Speed, each job against the straightforward way, in one process and interleaved.

A paper's jobs are in its bench.py: `jobs()` returns a list of `Job`.
Ratios are of medians; on a shared machine only the ratio means anything.
"""

import importlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click
import torch

from common.base import paths
from common.base.duration import duration
from common.base.terminal import print_table
from common.training.determinism import make_deterministic

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


@dataclass(frozen=True)
class Result:
    paper: str
    job: str
    ratio: float  # straightforward time over ours
    samples_per_s: float
    share: float  # of the measured matrix-multiply rate on as many threads
    peak_memory_mb: float  # so far: both ways, and the jobs before; of this process, or on the GPU where the job is
    whole: str  # what a user waits for
    whole_s: float  # and how long, at this rate


def run_benchmarks(papers: list[str], as_json: bool) -> None:
    """Time every job of the papers that have any, as deterministically as training, and print the results."""
    make_deterministic(0)
    results = [_time(paper, job) for paper in papers for job in _jobs(paper)]
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=1))
        return
    lines = [
        [
            r.paper, r.job, f"{r.ratio:.1f}", f"{r.samples_per_s:,.0f}", f"{r.share:.1%}",
            f"{r.peak_memory_mb:,.0f} MB", f"{r.whole}: {duration(r.whole_s)}",
        ]
        for r in results
    ]  # fmt: skip
    columns = ["paper", "job", "times the plain way", "samples/s", "of matrix rate", "peak memory so far", "in all"]
    print_table("Speed", columns, lines)


def _jobs(paper: str) -> list[Job]:
    if not (paths.PAPERS / paper / "bench.py").exists():
        return []
    return importlib.import_module(f"papers.{paper}.bench").jobs()


def _time(paper: str, job: Job) -> Result:
    torch.set_num_threads(job.threads)
    ours, straightforward = [], []
    for measured in (False, *[True] * ROUNDS):  # the first round warms up
        seconds = _seconds_per_sample(job.ours), _seconds_per_sample(job.straightforward)
        if measured:
            ours.append(seconds[0])
            straightforward.append(seconds[1])
    rate = 1 / statistics.median(ours)
    return Result(
        paper=paper,
        job=job.name,
        ratio=statistics.median(straightforward) / statistics.median(ours),
        samples_per_s=rate,
        share=rate * job.flops_per_sample / matrix_rate(job.precision, job.device),
        peak_memory_mb=_peak_memory_mb(job.device),
        whole=job.whole,
        whole_s=job.samples / rate,
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
