"""The heart of a run: what it keeps, where it goes on, and what it refuses. With a paper of a few lines, made here."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import sys
from dataclasses import dataclass, field
from types import ModuleType

import pytest
import torch
from torch import Tensor

from common.base.errors import MachineError, NumbersError, UsageError
from common.data.passports import LocatedData
from common.training import checkpoint, run
from common.training.evaluation import Measured
from common.training.processes import Processes
from common.training.run import Job, Run, Trained, run_job
from tests.contract.helpers import killed_after, watching

COUNT, BATCH, EPOCHS = 10, 4, 3  # 3 steps an epoch, the last one of two samples


@dataclass(frozen=True)
class Recipe:
    rate: float = 0.1


@dataclass
class At:
    loss: float = 0.0
    seen: list[int] = field(default_factory=list)
    sums: Tensor = field(default_factory=lambda: torch.zeros(2))
    best: dict[str, Tensor] = field(default_factory=dict)


def train(running: Run, recipe: Recipe) -> Trained:
    model = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(model.weight, 0.5)
    torch.nn.init.zeros_(model.bias)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.rate)
    precision = running.choose_precision("float32")
    at = At()
    running.resume(at, model=model, optimiser=optimiser)
    for epoch in running.epochs(EPOCHS, samples=COUNT):
        if running.at_epoch_start:
            at.sums = torch.full((2,), float(epoch))
        for step, batch in running.steps(torch.arange(COUNT).split(BATCH)):
            loss = model(batch[:, None].to(precision).expand(-1, 2)).square().mean()
            running.require_finite(loss.item(), f"the loss in epoch {epoch}, step {step}")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            at.loss += loss.item()
            at.seen.append(10 * epoch + step)
            at.sums += 1
            at.best = {"weight": model.weight.detach().clone()}
            running.advance(len(batch))
        running.log(loss=at.loss, sums=at.sums.sum().item())
        at.loss = 0.0
    return Trained(dict(model.state_dict()), "split", details={"seen": list(at.seen)})


def evaluate(weights, recipe, data, device) -> Measured:
    return Measured({"last": {"test_error": 10.0}})


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """papers.tiny: this file's `train` and `evaluate`."""
    for name, function in (("train", train), ("eval", evaluate)):
        module = ModuleType(f"papers.tiny.{name}")
        setattr(module, {"train": "train", "eval": "evaluate"}[name], function)
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def job(tmp_path):
    data = LocatedData("shapes", "official", tmp_path, {"train.bin": "ab"})
    code = {"commit": None, "committed": False, "sources": "12"}
    return Job("tiny", "plain", "full", 0, Recipe(), False, data, "cpu", tmp_path / "runs", "command", code)


def outcome(job: Job) -> tuple:
    record, reused = run_job(job)
    assert not reused
    return record.weights.sha256, record.curves, record.details


# ---- going on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(1, 10))
def test_killed_after_any_step_it_goes_on_to_the_same_outcome(job, tmp_path, steps):
    whole = outcome(dataclasses.replace(job, runs_dir=tmp_path / "whole"))
    assert whole[2]["seen"] == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    with killed_after(steps):
        run_job(job)
    assert outcome(job) == whole
    assert not list(job.folder.glob("*.ckpt"))


def test_killed_twice_it_counts_samples_and_seconds_of_all_parts(job):
    def wait(running):
        running._earlier_seconds += 100  # as if each step took so long

    with watching(wait):
        for steps in (2, 3):
            with killed_after(steps):
                run_job(job)
        record, _ = run_job(job)
    assert record.times.training_seconds == pytest.approx(900, abs=50)
    assert record.times.samples_per_second == pytest.approx(EPOCHS * COUNT / record.times.training_seconds)


def test_it_keeps_the_memory_that_it_frees(job, monkeypatch):
    calls = []
    monkeypatch.setattr(run, "keep_freed_memory", lambda: calls.append(1))
    run_job(job)
    assert calls == [1]


def test_a_fresh_start_leaves_nothing_of_the_run_before(job, monkeypatch):
    """Else a network and curves would lie beside a record that is not theirs."""
    run_job(job)
    left = {file.name for file in job.folder.iterdir()}
    assert {"record.json", "run.json", "curves.csv", "weights.safetensors"} <= left
    monkeypatch.setattr(run, "_train_and_measure", lambda run: (_ for _ in ()).throw(NumbersError("the loss is nan")))
    with pytest.raises(NumbersError):
        run_job(dataclasses.replace(job, fresh=True))
    assert {file.name for file in job.folder.iterdir()} == {"record.json", "lock"}


def test_it_is_kept_when_the_time_has_come_and_not_before(job, monkeypatch):
    kept = []
    monkeypatch.setattr(checkpoint, "save", lambda folder, samples, state: kept.append(samples))
    run_job(job)
    assert kept == []
    monkeypatch.setattr(run, "SECONDS_BETWEEN_SAVES", -1.0)
    run_job(dataclasses.replace(job, fresh=True))
    assert kept == [4, 8, 10, 14, 18, 20, 24, 28, 30]


def test_a_step_that_advances_twice_is_a_bug_that_shows(job, monkeypatch):
    def twice(running):
        running.advance(1)

    with watching(twice), pytest.raises(RuntimeError, match="each step of run.steps ends in one run.advance"):
        run_job(job)


# ---- which runs share a folder -------------------------------------------------------------------


def test_a_modified_run_never_meets_an_unmodified_one(job):
    modified = dataclasses.replace(job, recipe=Recipe(0.2), modified=True)
    other = dataclasses.replace(job, recipe=Recipe(0.3), modified=True)
    assert len({job.folder, modified.folder, other.folder}) == 3
    with killed_after(2):
        run_job(modified)
    assert not list(job.folder.parent.glob("seed-0/*.ckpt"))
    unmodified, changed = outcome(job), outcome(modified)
    assert unmodified[0] != changed[0]
    assert run_job(job)[1] and run_job(modified)[1]  # both are found again


@pytest.mark.parametrize("change", [{"preset": "quick"}, {"variant": "wide"}, {"seed": 1}, {"paper": "small"}])
def test_runs_of_another_kind_have_another_folder(job, change):
    assert dataclasses.replace(job, **change).folder != job.folder


def test_runs_on_another_edition_have_another_folder(job):
    resized = dataclasses.replace(job.data, edition="resized")
    assert dataclasses.replace(job, data=resized).folder != job.folder


# ---- what is refused -------------------------------------------------------------------------------


REFUSED = [
    ("recipe", lambda job: dataclasses.replace(job, recipe=Recipe(0.2))),
    ("data", lambda job: dataclasses.replace(job, data=dataclasses.replace(job.data, files={"train.bin": "cd"}))),
    ("sources", lambda job: dataclasses.replace(job, code=job.code | {"sources": "34"})),
]


@pytest.mark.parametrize(("what", "change"), REFUSED)
@pytest.mark.parametrize("finished", [False, True])
def test_what_was_begun_with_something_else_is_refused(job, what, change, finished):
    if finished:
        run_job(job)
    else:
        with killed_after(2):
            run_job(job)
    with pytest.raises(UsageError, match=f"{what} changed since the run began. Start over with --fresh."):
        run_job(change(job))
    run_job(dataclasses.replace(change(job), fresh=True))


def test_all_that_differs_is_named(job):
    run_job(job)
    changed = dataclasses.replace(job, recipe=Recipe(0.2), code=job.code | {"sources": "34"})
    with pytest.raises(UsageError, match="recipe and sources changed since the run began"):
        run_job(changed)


@pytest.mark.parametrize("damaged", ["{", "[]", '{"identity": {}, "environments": []}', '{"identity": 1}'])
def test_a_damaged_start_file_is_refused(job, damaged):
    run_job(job)
    (job.folder / "run.json").write_text(damaged)
    with pytest.raises(UsageError, match="run.json is damaged. Start over with --fresh."):
        run_job(job)


@pytest.mark.parametrize("finished", [True, False])
def test_without_its_start_file_a_run_is_refused(job, finished):
    """Nobody knows what recipe, data and sources it was begun with."""
    with contextlib.nullcontext() if finished else killed_after(2):
        run_job(job)
    (job.folder / "run.json").unlink()
    with pytest.raises(UsageError, match="run.json is missing: .* Start over with --fresh."):
        run_job(job)
    assert run_job(dataclasses.replace(job, fresh=True))


@pytest.mark.parametrize("name", ["scipy", "scikit_learn", "pillow"])
def test_a_library_that_an_old_start_does_not_name_is_no_other(job, name):
    with killed_after(2):
        run_job(job)
    start = json.loads((job.folder / "run.json").read_text())
    start["environments"][0][name] = None
    (job.folder / "run.json").write_text(json.dumps(start))
    assert run_job(job)[0].earlier_environments == []


def test_arithmetic_compiled_by_another_compiler_is_refused(job, monkeypatch):
    """What was compiled is known only once a paper's `train` has begun."""
    with killed_after(2):
        run_job(job)
    start = json.loads((job.folder / "run.json").read_text())
    start["environments"][0]["compiled"] = "a step by gcc 1.2"
    (job.folder / "run.json").write_text(json.dumps(start))
    with pytest.raises(UsageError, match=r"was begun elsewhere \(compiled a step by gcc 1.2, not None\)"):
        run_job(job)
    record, _ = run_job(dataclasses.replace(job, other_machine=True))
    assert [each.compiled for each in record.earlier_environments] == ["a step by gcc 1.2"]


def test_processes_that_would_not_compute_alike_are_told(job, monkeypatch):
    """The second of two, seen from itself: alike with a first one that compiled the same, and not with another."""
    second = Run(dataclasses.replace(job, processes=Processes(rank=1, count=2)))
    second.note_compiled("a step by gcc 1.2")
    monkeypatch.setattr(Processes, "largest", lambda processes, number: number)
    monkeypatch.setattr(Processes, "from_first", lambda processes, value: value)
    second._require_one_arithmetic()
    monkeypatch.setattr(Processes, "from_first", lambda processes, value: "a step by clang 3")
    with pytest.raises(MachineError, match="the first has compiled a step by clang 3, another one something else"):
        second.resume(None)


MACHINE = [
    "processor", "instruction_set", "device", "threads", "processes",
    "torch", "numpy", "scipy", "scikit_learn", "pillow",
]  # fmt: skip


@pytest.mark.parametrize("name", MACHINE)
def test_a_machine_on_which_the_bits_may_differ_is_refused(job, name):
    with killed_after(2):
        run_job(job)
    start = json.loads((job.folder / "run.json").read_text())
    before = start["environments"][0][name]
    start["environments"][0][name] = 99 if isinstance(before, int) else "another"
    (job.folder / "run.json").write_text(json.dumps(start))
    with pytest.raises(UsageError, match="was begun elsewhere .* the bits would differ"):
        run_job(job)
    assert set(run.MACHINE) == set(MACHINE)
    record, _ = run_job(dataclasses.replace(job, other_machine=True))
    assert [getattr(each, name) for each in record.earlier_environments] == [start["environments"][0][name]]


def test_a_finished_run_is_shown_on_whatever_machine(job):
    run_job(job)
    start = json.loads((job.folder / "run.json").read_text())
    start["environments"][0]["processor"] = "another"
    (job.folder / "run.json").write_text(json.dumps(start))
    assert run_job(job)[1]


def test_a_run_that_stays_on_one_machine_names_no_other(job):
    with killed_after(2):
        run_job(job)
    assert run_job(job)[0].earlier_environments == []


# ---- numbers that go bad -----------------------------------------------------------------------------


def test_bad_numbers_leave_a_record_and_end_the_seed(job):
    bad = dataclasses.replace(job, recipe=Recipe(1e30))
    with pytest.raises(NumbersError, match="seed 0 failed: the loss in epoch 0, step 1 is inf"):
        run_job(bad)
    kept = json.loads(bad.record_file.read_text())
    assert (kept["status"], kept["failure"]) == ("failed", "the loss in epoch 0, step 1 is inf")
    with pytest.raises(NumbersError, match="failed before"):
        run_job(bad)


def test_weights_that_are_not_finite_are_a_failure_though_the_loss_is(job, monkeypatch):
    module = sys.modules["papers.tiny.train"]
    monkeypatch.setattr(module, "train", lambda *_: Trained({"w": torch.tensor([1.0, math.nan])}, "split"))
    with pytest.raises(NumbersError, match="the largest weight of w is nan"):
        run_job(job)


# ---- one process of several ------------------------------------------------------------------------------


def test_only_the_first_of_several_processes_writes(job, monkeypatch):
    monkeypatch.setattr(Processes, "largest", lambda here, number: number)
    monkeypatch.setattr(Processes, "from_first", lambda here, value: value)
    second = Run(dataclasses.replace(job, processes=Processes(rank=1, count=2)))
    with second.lock():
        second.resume(At(), model=torch.nn.Linear(2, 1))
        second.log(loss=1.0)
        second.keep()
        second.write_curves()
    assert not job.folder.exists()


def test_a_worker_does_not_hold_the_lock(job):
    """One that outlives its run, for a moment after `kill -9`, would have the same command say that it is running."""
    run = Run(job)
    with run.lock(), pytest.raises(MachineError, match="is already running"), Run(job).lock():
        pass
    begun, begins = os.pipe()
    with run.lock():
        worker = os.fork()
        if not worker:
            os.write(begins, b".")
            signal.pause()
            os._exit(0)
        os.read(begun, 1)
    try:
        with Run(job).lock():
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
