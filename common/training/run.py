"""One seed of one variant: its folder, its lock, its checkpoints, and the record it ends in.

A paper's `train` tells the run once what changes in training, and loops over `run.epochs` and `run.steps`; the run
saves it from time to time, and after an interruption both go on from there:

    at = At()
    run.resume(at, model=model, optimiser=optimiser)
    for epoch in run.epochs(recipe.epochs, samples=len(images)):
        for step, batch in run.steps(order.split(recipe.batch_size)):
            ...
            run.advance(len(batch))
        run.log(loss=at.loss / len(images))
        at.loss = 0.0
"""

import contextlib
import fcntl
import importlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

import pydantic
import torch
from torch import Tensor

from common.base.errors import Interrupted, MachineError, NumbersError, UsageError
from common.base.files import write_whole
from common.base.progress import WorkBar, say, warn
from common.base.schema import Checked, read
from common.data.passports import LocatedData
from common.training import checkpoint, determinism, provenance
from common.training.allocator import keep_freed_memory
from common.training.device import fast_precision, precision_name
from common.training.processes import Processes, lost_peer_noticed
from common.training.provenance import MACHINE, Environment, differing
from common.training.recipes import plain
from common.training.records import FailedRecord, FinishedRecord, Metrics, Record, make_record, read_run, write_record
from common.training.weights import RUN_WEIGHTS, save_weights, weights_hash

SECONDS_BETWEEN_SAVES = 30.0
SECONDS_BETWEEN_LOGS = 2.0  # curves.csv is for whoever is watching, and many rows a second may come

Batch = TypeVar("Batch")


class Stateful(Protocol):
    """A module, an optimiser: whatever PyTorch gives a state_dict."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def folder_name(preset: str, edition: str, modified: str | None) -> str:
    """Of the folder that has the seeds of a run. A modified one has its own, so it never meets an unmodified one.

    Args:
        modified: the hash of the recipe, where it is modified.
    """
    return f"{preset}-{edition}" + (f"-modified-{modified[:8]}" if modified else "")


@dataclass(frozen=True)
class Job:
    """What is to be run.

    Attributes:
        code: what the record says about the paper's sources, as they were when the command began.
    """

    paper: str
    variant: str
    preset: str
    seed: int
    recipe: Any  # the paper's frozen Recipe
    modified: bool
    data: LocatedData
    device: str
    runs_dir: Path
    command: str
    code: dict[str, Any]
    fresh: bool = False
    other_machine: bool = False
    processes: Processes = Processes()

    @property
    def folder(self) -> Path:
        modified = provenance.recipe_hash(self.recipe) if self.modified else None
        name = folder_name(self.preset, self.data.edition, modified)
        return self.runs_dir / self.paper / self.variant / name / f"seed-{self.seed}"

    @property
    def record_file(self) -> Path:
        return self.folder / "record.json"

    def identity(self) -> dict[str, str]:
        """What must not change between a start and a resume."""
        return {
            "recipe": provenance.recipe_hash(self.recipe),
            "data": provenance.hash_of([self.data.edition, self.data.files]),
            "sources": self.code["sources"],
        }


class Start(Checked):
    """run.json: what a run began with, and every kind of machine that it was on."""

    identity: dict[str, str]
    environments: Annotated[list[Environment], pydantic.Field(min_length=1)]


@dataclass
class Trained:
    """What a paper's `train` hands back.

    `metrics` are those measured along the way (an earlier epoch's, say), by protocol, and
    `details` whatever else the record is to keep; eval.py measures the final weights.
    """

    weights: dict[str, Tensor]
    split: str  # sha256 over which examples train and which test
    metrics: Metrics = field(default_factory=dict)
    details: dict[str, list] = field(default_factory=dict)


class Run:
    """What `train` can ask for: resume, keep, log, show progress.

    Attributes:
        curves: what was logged so far, by name.
        watchers: called at the end of every `advance`, so that a test can stop a run, or keep it, at a given step.
    """

    watchers: ClassVar[list[Callable[["Run"], None]]] = []

    def __init__(self, job: Job):
        self.job = job
        self.seed = job.seed
        self.data = job.data
        self.device = job.device
        self.processes = job.processes
        self.curves: dict[str, list[float]] = {}
        self.compiled: str | None = None
        self.precision = "float32"
        self.flags: dict[str, bool | str] = {}
        self.samples = 0  # trained on so far, counting repeats
        self.earlier_environments: list[Environment] = []
        self._at: Any = None
        self._parts: dict[str, Stateful] = {}
        self._epoch, self._step = 0, 0  # how many are done
        self._advanced: tuple[int, int] | None = None
        self._signal: int | None = None
        self._bar: WorkBar | None = None
        self._saved_at = self._logged_at = self._started_at = time.monotonic()
        self._earlier_seconds = 0.0

    # -- what train.py calls ------------------------------------------------

    def choose_precision(self, wanted: str) -> torch.dtype:
        """The number format to multiply in, which the record will name.

        Args:
            wanted: "fast", what the device multiplies fastest (bfloat16 or float32), or "float32".
        """
        precision = fast_precision(self.device) if wanted == "fast" else torch.float32
        self.precision = precision_name(precision)
        return precision

    def note_compiled(self, how: str | None) -> None:
        """For the record: one more thing that was compiled, and by what; None if nothing was."""
        self.compiled = "; ".join(filter(None, (self.compiled, how))) or None

    def resume(self, at: Any, **parts: Stateful) -> None:
        """Say what changes in training, and load the last checkpoint into it, if there is one.

        Args:
            at: a dataclass of numbers, tensors, and lists and dicts of them: what is summed up along the way.
            parts: modules and optimisers.

        Raises:
            MachineError: the processes that train together have compiled different arithmetic.
        """
        self._at, self._parts = at, parts
        self._require_one_arithmetic()
        if self.processes.first:
            self._remember_start()  # now: it is known what was compiled
        saved = self.processes.from_first(checkpoint.load(self.job.folder, warn) if self.processes.first else None)
        if saved is None:
            return
        for name, value in saved["at"].items():
            now = getattr(at, name)
            setattr(at, name, value.to(now.device) if isinstance(now, Tensor) else value)
        for name, part in parts.items():
            part.load_state_dict(saved["parts"][name])
        self.curves = saved["curves"]
        self._epoch, self._step, self.samples = saved["epoch"], saved["step"], saved["samples"]
        self._earlier_seconds = saved["seconds"]
        say(f"resuming seed {self.seed} at {self.samples:,} samples")

    def epochs(self, count: int, samples: int) -> Iterator[int]:
        """The remaining epochs of `count`, numbered from 0, with a bar over the `samples` of each."""
        self._bar = WorkBar(f"training, seed {self.seed}", count * samples, self.samples)
        self._bar.start()
        while self._epoch < count:
            self._bar.detail = f"epoch {self._epoch + 1}/{count}"
            yield self._epoch
            self._epoch, self._step = self._epoch + 1, 0
        self._bar.stop()

    @property
    def at_epoch_start(self) -> bool:
        """Whether no step of the epoch has been taken yet; false where a run resumes in the middle of one."""
        return self._step == 0

    def steps(self, batches: Sequence[Batch]) -> Iterator[tuple[int, Batch]]:
        """The remaining batches of this epoch, each with its number from 0. Each ends in one `advance`."""
        for number in range(self._step, len(batches)):
            self._step = number + 1  # it will be done when `advance` may save it
            yield number, batches[number]

    def advance(self, samples: int) -> None:
        """Call at the end of every step: moves the bar, saves what changes from time to time, and saves it and leaves
        when a signal has asked for that.

        Args:
            samples: how many the step trained on, in all processes together.

        Raises:
            Interrupted: SIGINT or SIGTERM came; progress is saved.
        """
        if self._advanced == (self._epoch, self._step):
            raise RuntimeError("each step of run.steps ends in one run.advance")
        self._advanced = self._epoch, self._step
        self.samples += samples
        if self._bar:
            self._bar.advance(samples)
        if number := self.processes.largest(self._signal or 0):
            self._leave(number)
        if time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES:
            self.keep()
        for watch in self.watchers:
            watch(self)

    def keep(self) -> None:
        """Write a checkpoint. Of several processes, only the first does."""
        if self.processes.first:
            content = {
                "at": vars(self._at),
                "parts": {name: part.state_dict() for name, part in self._parts.items()},
                "curves": self.curves,
                "epoch": self._epoch,
                "step": self._step,
                "samples": self.samples,
                "seconds": self.training_seconds(),
            }
            checkpoint.save(self.job.folder, self.samples, content)
        self._saved_at = time.monotonic()

    def log(self, **values: float) -> None:
        """Add a point to every curve."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append(value)
        if time.monotonic() - self._logged_at > SECONDS_BETWEEN_LOGS:
            self.write_curves()

    def require_finite(self, value: float, what: str) -> None:
        """All processes must call it.

        Raises:
            NumbersError: the value is NaN or infinite, here or in another process.
        """
        if self.processes.largest(int(not math.isfinite(value))):
            raise NumbersError(f"{what} is {'not finite in another process' if math.isfinite(value) else value}")

    # -- what `run_job` calls ------------------------------------------------

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """The clock runs, and the bar does not outlive what it shows."""
        self._started_at = time.monotonic()
        try:
            with lost_peer_noticed():
                yield
        finally:
            if self._bar:
                self._bar.stop()

    def training_seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started_at

    def write_curves(self) -> None:
        """curves.csv, for whoever is watching."""
        if self.processes.first and self.curves:
            rows = zip(*self.curves.values(), strict=True)
            lines = [",".join(self.curves), *(",".join(f"{value:.6g}" for value in row) for row in rows)]
            write_whole(self.job.folder / "curves.csv", ("\n".join(lines) + "\n").encode())
            self._logged_at = time.monotonic()

    def environment(self) -> Environment:
        threads, count = torch.get_num_threads(), self.processes.count
        return provenance.environment(self.device, threads, self.precision, self.compiled, self.flags, count)

    def refuse_if_changed(self) -> None:
        """A run that was begun with another recipe, data or sources, or on another machine, cannot go on here.

        Raises:
            UsageError: this one was, or what was written at its start cannot be read.
        """
        if self.job.fresh:
            checkpoint.clear(self.job.folder)
            for name in ("record.json", "run.json", "curves.csv", RUN_WEIGHTS):
                (self.job.folder / name).unlink(missing_ok=True)
        if not self._start_file.exists():
            if self.job.record_file.exists() or checkpoint.exists(self.job.folder):
                raise UsageError(
                    f"{self._start_file} is missing: it says what this run was begun with. Start over with --fresh."
                )
            return
        try:
            start = read(self._start_file, Start)
        except UsageError:
            raise UsageError(f"{self._start_file} is damaged. Start over with --fresh.") from None
        now = self.job.identity()
        changed = " and ".join(part for part in now if start.identity.get(part) != now[part])
        self.earlier_environments = start.environments
        if changed:
            raise UsageError(f"{self.job.folder}: {changed} changed since the run began. Start over with --fresh.")
        if not self.job.record_file.exists():
            self._refuse_another_machine(MACHINE)

    @property
    def _start_file(self) -> Path:
        return self.job.folder / "run.json"

    def _refuse_another_machine(self, parts: Iterable[str]) -> None:
        differs = differing(self.earlier_environments[-1], self.environment(), parts)
        if differs and not self.job.other_machine:
            raise UsageError(
                f"{self.job.folder} was begun elsewhere ({'; '.join(differs)}): the bits would differ. "
                "Go on with --other-machine, which the record will note, or start over with --fresh."
            )

    def _require_one_arithmetic(self) -> None:
        first = self.processes.from_first(self.compiled)
        if self.processes.largest(int(self.compiled != first)):
            raise MachineError(
                f"The processes do not compute alike: the first has compiled {first or 'nothing'}, "
                "another one something else. Give all machines the same compiler."
            )

    def _remember_start(self) -> None:
        """Written once the data is loaded: a start that fails before that leaves nothing behind.

        Raises:
            UsageError: it was begun with other compiled arithmetic. (On a GPU a graph has the bits of its parts.)
        """
        now, parts = self.environment(), MACHINE if self.device == "cuda" else (*MACHINE, "compiled")
        if not self.earlier_environments:
            self.earlier_environments.append(now)
        elif differing(self.earlier_environments[-1], now, parts):
            self._refuse_another_machine(parts)
            self.earlier_environments.append(now)
        start = Start(identity=self.job.identity(), environments=self.earlier_environments)
        write_whole(self._start_file, start.model_dump_json(indent=1).encode())

    def _leave(self, number: int) -> None:
        self.keep()
        self.processes.from_first(None)  # no process ends, which would end the others, before the first has written
        raise Interrupted(number, f"{signal.Signals(number).name}: seed {self.seed} is saved; {self._how_to_go_on()}.")

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks the loop to save and leave; a second one of the same kind does not wait."""

        def handle(number: int, _frame: object) -> None:
            if self._signal == number:
                raise Interrupted(number, "stopped at once; what was saved before is intact.")
            self._signal = number

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def heed_late_signal(self) -> None:
        """A signal that came after the last step: this seed is finished, and no other is begun."""
        if number := self.processes.largest(self._signal or 0):
            name = signal.Signals(number).name
            raise Interrupted(number, f"{name}: seed {self.seed} is finished; {self._how_to_go_on()}.")

    def _how_to_go_on(self) -> str:
        return f"the same command{' without --fresh' if self.job.fresh else ''} goes on from here"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """
        Raises:
            MachineError: this seed is already running, or its folder cannot be written.
        """
        if not self.processes.first:
            yield
            return
        try:
            self.job.folder.mkdir(parents=True, exist_ok=True)
            stream = open(self.job.folder / "lock", "w")  # noqa: SIM115 (closed below, when the run is over)
        except OSError as error:
            raise MachineError(
                f"{self.job.folder}: {error.strerror}. Name a writable folder with --runs-dir."
            ) from None
        os.register_at_fork(after_in_child=stream.close)  # else a worker that outlives this process would hold the lock
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MachineError(
                    f"seed {self.seed} of {self.job.variant} is already running in {self.job.folder}."
                ) from None
            except OSError as error:  # some network file systems have no locks
                warn(f"{self.job.folder} cannot be locked ({error.strerror}): make sure that no second run uses it.")
            yield


def run_job(job: Job) -> tuple[FinishedRecord, bool]:
    """Train, evaluate, record one seed; resume or reuse what is there.

    Returns:
        The record, and whether it had been finished before.

    Raises:
        UserError: as the exit codes say. A failed run leaves its record first.
    """
    run, processes = Run(job), job.processes
    with run.lock(), run.signals():
        if processes.first:
            run.refuse_if_changed()
        before = read_run(job.record_file) if processes.first and job.record_file.exists() else None
        if before := processes.from_first(before):
            return _reuse(before), True
        run.flags = determinism.make_deterministic(job.seed)
        keep_freed_memory()
        try:
            made: Record | None = _train_and_measure(run)
        except NumbersError as error:
            made = _failed(run, str(error))
        record = processes.from_first(made)
        assert record is not None  # only the other processes have none
        if processes.first:
            run.write_curves()
            write_record(record, job.record_file)
            checkpoint.clear(job.folder)
        run.heed_late_signal()
        if isinstance(record, FailedRecord):
            raise NumbersError(f"seed {job.seed} failed: {record.failure}.")
        return record, False


def _reuse(record: Record) -> FinishedRecord:
    if isinstance(record, FailedRecord):
        raise NumbersError(f"seed {record.seed} failed before: {record.failure}. --fresh runs it again.")
    return record


def _train_and_measure(run: Run) -> FinishedRecord | None:
    """The record, in the first process; the others only train."""
    job = run.job
    training = importlib.import_module(f"papers.{job.paper}.train")
    evaluation = importlib.import_module(f"papers.{job.paper}.eval")  # now: it may be edited while training runs
    with run.training():
        trained: Trained = training.train(run, job.recipe)
    if not run.processes.first:
        return None
    seconds = run.training_seconds()
    for name, weights in trained.weights.items():  # a loss can stay finite where squashing hides a NaN
        if not weights.abs().max().isfinite():
            raise NumbersError(f"the largest weight of {name} is {weights.abs().max().item()}")
    measured = evaluation.evaluate(trained.weights, job.recipe, job.data, job.device)
    of = f"{job.paper}/{job.variant}/seed-{job.seed}"
    file = save_weights(trained.weights, job.folder / RUN_WEIGHTS, of, plain(job.recipe))
    return make_record(
        FinishedRecord,
        metrics={**trained.metrics, **measured.metrics},
        details={**trained.details, **measured.details},
        curves=run.curves,
        data=_data_used(job, trained.split),
        weights={"sha256": weights_hash(trained.weights), "file": file.name},
        times={
            "wall_seconds": run.training_seconds(),
            "training_seconds": seconds,
            "samples_per_second": run.samples / seconds,
        },
        **_common_fields(run),
    )


def _failed(run: Run, why: str) -> FailedRecord:
    seconds = run.training_seconds()
    return make_record(
        FailedRecord,
        failure=why,
        data=_data_used(run.job, "not reached"),
        times={"wall_seconds": seconds, "training_seconds": seconds, "samples_per_second": 0.0},
        **_common_fields(run),
    )


def _data_used(job: Job, split: str) -> dict[str, Any]:
    return {"dataset": job.data.dataset, "edition": job.data.edition, "files": job.data.files, "split": split}


def _common_fields(run: Run) -> dict[str, Any]:
    job, environment = run.job, run.environment().model_dump()
    return {
        "paper": job.paper,
        "variant": job.variant,
        "preset": job.preset,
        "seed": job.seed,
        "modified": job.modified,
        "recipe": plain(job.recipe),
        "recipe_hash": provenance.recipe_hash(job.recipe),
        "code": job.code,
        "environment": environment,
        "earlier_environments": [each.model_dump() for each in run.earlier_environments[:-1]],
        "command": job.command,
    }
