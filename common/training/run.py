"""One seed of one variant: its folder, its lock, its checkpoints, and the record it ends in."""

import contextlib
import dataclasses
import fcntl
import json
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from common.base.errors import Interrupted, MachineError, NumbersError, UsageError
from common.base.files import write_whole
from common.base.progress import WorkBar, say, warn
from common.claims.papers import Paper
from common.data.passports import LocatedData
from common.training import checkpoint, determinism, provenance
from common.training.device import fast_precision
from common.training.records import Metrics, Record, make_record, read_run, write_record
from common.training.weights import RUN_WEIGHTS, save_weights, weights_hash

SECONDS_BETWEEN_SAVES = 30.0

State = dict | Callable[[], dict]  # what `resume` will hand back, or what makes it when it is to be written


@dataclass(frozen=True)
class Job:
    """What is to be run."""

    paper: Paper
    variant: str
    preset: str
    seed: int
    recipe: object  # the paper's frozen Recipe
    modified: bool
    data: LocatedData
    device: str
    runs_dir: Path
    fresh: bool
    command: str

    @property
    def folder(self) -> Path:
        """A modified run has a folder of its own, so it never meets an unmodified one."""
        name = f"{self.preset}-{self.data.edition}"
        if self.modified:
            name += f"-modified-{provenance.recipe_hash(self.recipe)[:8]}"
        return self.runs_dir / self.paper.name / self.variant / name / f"seed-{self.seed}"

    @property
    def record_file(self) -> Path:
        return self.folder / "record.json"

    def identity(self) -> dict[str, str]:
        """What must not change between a start and a resume."""
        processor = torch.cuda.get_device_name() if self.device == "cuda" else self.device
        return {
            "recipe": provenance.recipe_hash(self.recipe),
            "data": provenance.hash_of([self.data.edition, self.data.files]),
            "sources": self.paper.code["sources"],
            "processor": f"{processor}, {fast_precision(self.device)}",
        }


@dataclass
class Trained:
    """What a paper's `train` hands back.

    `metrics` are those measured on the way (an earlier epoch's, say), by protocol, and
    `details` what the record is to keep besides; eval.py measures the final weights.
    """

    weights: dict[str, Tensor]
    split: str  # sha256 over which examples train and which test
    samples: int  # how many were trained on, counting repeats
    curves: dict[str, list[float]] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    details: dict[str, list] = field(default_factory=dict)


class Run:
    """What `train` may ask of the house: resume, keep, log, show progress.

    Attributes:
        precision, compiled: for the record, how `train` computes; it sets them as soon as it knows.
    """

    def __init__(self, job: Job):
        self.job = job
        self.seed = job.seed
        self.data = job.data
        self.device = job.device
        self.precision = "float32"
        self.compiled: str | None = None
        self._signal: int | None = None
        self._bar: WorkBar | None = None
        self._saved_at = time.monotonic()
        self._earlier_seconds = 0.0
        self._started = time.monotonic()

    # -- what train.py calls ------------------------------------------------

    def resume(self) -> dict | None:
        """The state last kept, or None at the beginning."""
        state = checkpoint.load(self.job.folder, warn)
        if state is None:
            return None
        self._earlier_seconds = state["seconds"]
        say(f"resuming seed {self.seed} at {state['samples']:,} samples")
        return state["content"]

    @contextlib.contextmanager
    def progress(self, title: str, total: int, done: int = 0):
        """A bar over `total` samples; `advance` moves it."""
        with WorkBar(f"{title}, seed {self.seed}", total, done) as self._bar:
            yield
        self._bar = None

    def advance(self, samples: int, state: State, detail: str = "") -> None:
        """Call after every few steps: moves the bar, keeps `state` now and then, and
        keeps it and leaves when a signal asked to. Where a state is dear to make, give the function that makes it.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state is kept.
        """
        self._bar.advance(samples, detail)
        if self._signal is not None:
            self.keep(state)
            name = signal.Signals(self._signal).name
            raise Interrupted(self._signal, f"{name}: seed {self.seed} is saved; {self._how_to_go_on()}.")
        if time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES:
            self.keep(state)

    def keep(self, state: State) -> None:
        """Write a checkpoint: tensors and plain values that `resume` will hand back."""
        samples = self._bar.done
        content = {
            "content": state() if callable(state) else state,
            "samples": samples,
            "seconds": self._training_seconds(),
        }
        checkpoint.save(self.job.folder, samples, content)
        self._saved_at = time.monotonic()

    def log(self, curves: dict[str, list[float]]) -> None:
        """Write the curves so far as curves.csv, for whoever watches."""
        columns = list(curves)
        rows = zip(*curves.values(), strict=True)
        lines = [",".join(columns), *(",".join(f"{value:.6g}" for value in row) for row in rows)]
        write_whole(self.job.folder / "curves.csv", ("\n".join(lines) + "\n").encode())

    def require_finite(self, value: float, what: str) -> None:
        """
        Raises:
            NumbersError: the value is NaN or infinite.
        """
        if not math.isfinite(value):
            raise NumbersError(f"{what} is {value}")

    # -- what `run_job` calls ------------------------------------------------

    def _training_seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started

    @contextlib.contextmanager
    def _signals(self):
        """The first SIGINT or SIGTERM asks the loop to save and leave; a second one does not wait."""

        def handle(number, _frame):
            if self._signal is not None:
                raise Interrupted(number, "stopped at once; what was saved before is intact.")
            self._signal = number

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heed_late_signal(self) -> None:
        """A signal that came after the last update: this seed is over, no other is begun."""
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            raise Interrupted(self._signal, f"{name}: seed {self.seed} is over; {self._how_to_go_on()}.")

    def _how_to_go_on(self) -> str:
        return f"the same command{' without --fresh' if self.job.fresh else ''} goes on from here"

    @contextlib.contextmanager
    def _lock(self):
        try:
            self.job.folder.mkdir(parents=True, exist_ok=True)
            stream = open(self.job.folder / "lock", "w")  # noqa: SIM115 (closed below, when the run is over)
        except OSError as error:
            raise MachineError(
                f"{self.job.folder}: {error.strerror}. Name a folder that can be written with --runs-dir."
            ) from None
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise MachineError(
                    f"seed {self.seed} of {self.job.variant} is already running in {self.job.folder}."
                ) from None
            yield

    def _refuse_if_changed(self) -> None:
        """What was begun with other recipe, data, sources or processor cannot go on with these."""
        file = self.job.folder / "run.json"
        now = self.job.identity()
        if self.job.fresh:
            checkpoint.clear(self.job.folder)
            for name in ("record.json", "run.json"):
                (self.job.folder / name).unlink(missing_ok=True)
        if file.exists():
            try:
                before = json.loads(file.read_text())
                changed = " and ".join(part for part in now if before[part] != now[part])
            except (ValueError, KeyError, TypeError):
                raise UsageError(f"{file} is damaged. Start over with --fresh.") from None
            if changed:
                raise UsageError(f"{self.job.folder} was begun with other {changed}. Start over with --fresh.")
        write_whole(file, json.dumps(now, indent=1).encode())


def run_job(job: Job) -> tuple[Record, bool]:
    """Train, evaluate, record one seed; resume or reuse what is there.

    Returns:
        The record, and whether it had been finished before.

    Raises:
        UserError: as the exit codes say. A failed run leaves its record first.
    """
    run = Run(job)
    with run._lock(), run._signals():
        run._refuse_if_changed()
        if job.record_file.exists():
            return _reuse(read_run(job.record_file)), True
        flags = determinism.make_deterministic(job.seed)
        try:
            record = _train_and_measure(run, flags)
        except NumbersError as error:
            write_record(_failed(run, flags, str(error)), job.record_file)
            run._heed_late_signal()
            raise NumbersError(f"seed {job.seed} failed: {error}.") from None
        write_record(record, job.record_file)
        checkpoint.clear(job.folder)
        run._heed_late_signal()
        return record, False


def _reuse(record: Record) -> Record:
    if record.status == "failed":
        raise NumbersError(f"seed {record.seed} failed before: {record.failure}. --fresh runs it again.")
    return record


def _train_and_measure(run: Run, flags: dict) -> Record:
    job = run.job
    evaluation = job.paper.module("eval")  # imported now: its file may be edited while the training is on
    run._started = time.monotonic()
    trained = job.paper.module("train").train(run, job.recipe)
    seconds = run._training_seconds()
    for name, weights in trained.weights.items():  # a loss can stay finite where squashing hides a NaN
        run.require_finite(weights.abs().max().item(), f"the largest weight of {name}")
    measured = evaluation.evaluate(trained.weights, job.recipe, job.data, job.device)
    of = f"{job.paper.name}/{job.variant}/seed-{job.seed}"
    file = save_weights(trained.weights, job.folder / RUN_WEIGHTS, of)
    return make_record(
        status="finished",
        metrics={**trained.metrics, **measured.metrics},
        details={**trained.details, **measured.details},
        curves=trained.curves,
        data=_data_used(job, trained.split),
        weights={"sha256": weights_hash(trained.weights), "file": file.name},
        times={
            "wall_seconds": run._training_seconds(),
            "training_seconds": seconds,
            "samples_per_second": trained.samples / seconds,
        },
        **_common_fields(run, flags),
    )


def _failed(run: Run, flags: dict, why: str) -> Record:
    seconds = run._training_seconds()
    return make_record(
        status="failed",
        failure=why,
        data=_data_used(run.job, "not reached"),
        times={"wall_seconds": seconds, "training_seconds": seconds, "samples_per_second": 0.0},
        **_common_fields(run, flags),
    )


def _data_used(job: Job, split: str) -> dict:
    return {"dataset": job.data.dataset, "edition": job.data.edition, "files": job.data.files, "split": split}


def _common_fields(run: Run, flags: dict) -> dict:
    job, threads = run.job, torch.get_num_threads()
    return {
        "paper": job.paper.name,
        "variant": job.variant,
        "preset": job.preset,
        "seed": job.seed,
        "modified": job.modified,
        "recipe": json.loads(json.dumps(dataclasses.asdict(job.recipe))),
        "recipe_hash": provenance.recipe_hash(job.recipe),
        "code": job.paper.code,
        "environment": provenance.environment(job.device, threads, run.precision, run.compiled, flags).model_dump(),
        "command": job.command,
    }
