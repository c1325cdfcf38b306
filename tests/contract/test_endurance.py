"""A bench of faults: the smoke run of every paper is killed at many moments and its checkpoints are spoilt. It always
ends with the same bits.

    bash reproduce.sh test -m slow tests/contract/test_endurance.py
"""

import os
import random
import runpy
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from common.claims.papers import find_papers
from common.training import checkpoint
from tests.contract.helpers import FAULTS, PAPER, bits, checkpoints, seed_folder, smoke

MOMENTS = {name: 50 if name == PAPER else 5 for name in find_papers()}
AT_ONCE = {name: 1 if name == PAPER else 5 for name in find_papers()}  # kills of one run, before it may end
WRITES = 6  # that every run does: run.json, at least two checkpoints, the curves, the weights and the record
pytestmark = pytest.mark.slow


# ---- commands, forked from a process that has imported everything and computed nothing ----------


def command(words: list[str], log: Path, prepare: Callable[[], None], delay: float | None) -> int:
    """The exit code of a command, which is killed after `delay` seconds if it is still running then."""
    from common.claims.papers import load_paper
    from common.cli.commands import main

    for name in ("train", "eval"):
        load_paper(words[0]).module(name)
    pid = os.fork()
    if not pid:
        for number, path in ((1, os.devnull), (2, log)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        prepare()
        try:
            main(words)
        except SystemExit as ended:
            os._exit(ended.code)
    if delay is not None:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def unharmed() -> None:
    """Keeps its state at every step."""
    from common.training.run import Run

    Run.watchers.append(Run.keep)


def counted(file: Path) -> None:
    """Writes down how many samples had been trained on after each step."""
    from common.training.run import Run

    unharmed()
    log = os.open(file, os.O_WRONLY | os.O_CREAT)
    Run.watchers.append(lambda run: os.write(log, f"{run.samples}\n".encode()))


def killed_at_write(call: str, number: int) -> None:
    unharmed()
    runpy.run_path(str(FAULTS / "sitecustomize.py"))["install"](f"{call}:{number}:KILL")


def killed_after(samples: int) -> None:
    from common.training.run import Run

    unharmed()
    Run.watchers.append(lambda run: run.samples == samples and os.kill(os.getpid(), signal.SIGKILL))


def killed_in_evaluation(paper: str) -> None:
    from common.claims.papers import load_paper

    unharmed()
    load_paper(paper).module("eval").evaluate = lambda *words: os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Smoke:
    """The smoke run of a paper."""

    paper: str
    folder: Path
    pool: ProcessPoolExecutor
    steps: tuple[int, ...] = ()  # samples trained on after each

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text()

    def run(self, runs: Path, *words, prepare=unharmed, delay=None) -> int:
        command_words = [str(word) for word in smoke(runs, "--device", "cpu", *words, paper=self.paper)]
        return self.pool.submit(command, command_words, self.folder / "log", prepare, delay).result()


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1, get_context("forkserver")) as pool:
        yield pool


@pytest.fixture(scope="module", params=MOMENTS)
def whole(request, pool, tmp_path_factory) -> tuple[Smoke, str, float]:
    """The run to which nothing happens: the bits that it ends with, and how many seconds it takes."""
    run = Smoke(request.param, tmp_path_factory.mktemp(request.param), pool)
    steps = run.folder / "steps"
    assert run.run(run.folder / "first", prepare=partial(counted, steps)) == 0, (
        run.said
    )  # compiles what is compiled once
    run.steps = tuple(map(int, steps.read_text().split()))
    begun = time.monotonic()
    assert run.run(run.folder / "whole") == 0, run.said
    seconds = time.monotonic() - begun
    assert bits(run.folder / "first") == bits(run.folder / "whole")
    return run, bits(run.folder / "whole"), seconds


def moments(run: Smoke, seconds: float) -> Iterator[dict]:
    """How a run is killed: at the first and the last step, while it is measured, before a write is whole, and after any
    time."""
    draw, first, last = random.Random(1998), run.steps[0], run.steps[-1]
    at_the_end = [{"prepare": partial(killed_after, last)}, {"prepare": partial(killed_in_evaluation, run.paper)}]
    writes = [(call, number) for call in ("replace", "fsync") for number in range(1, WRITES + 1)]
    draw.shuffle(writes)
    known = [{"prepare": partial(killed_after, first)}, *({"prepare": partial(killed_at_write, *of)} for of in writes)]
    known = known[: MOMENTS[run.paper] - 2 - len(at_the_end)]
    yield from known
    for _ in range(MOMENTS[run.paper] - len(known) - len(at_the_end)):
        yield {"delay": draw.uniform(0, seconds)}
    yield from at_the_end


def test_a_run_killed_at_any_moment_ends_with_the_same_bits(whole, tmp_path):
    run, expected, seconds = whole
    killed = resumed = 0
    for number, moment in enumerate(moments(run, seconds), start=1):
        killed += run.run(tmp_path, **moment) == -signal.SIGKILL
        resumed += "resuming seed 0" in run.said
        if number % AT_ONCE[run.paper]:
            continue
        assert run.run(tmp_path) == 0, run.said
        resumed += "resuming seed 0" in run.said
        assert bits(tmp_path) == expected, moment
        shutil.rmtree(tmp_path / run.paper)
    print(f"{run.paper}: killed {killed} times, resumed {resumed} times")
    assert killed >= MOMENTS[run.paper] // 2 and resumed


def killed_at_the_last_step(run: Smoke, runs: Path, *words) -> list[Path]:
    """The checkpoints that it leaves, oldest first."""
    assert run.run(runs, *words, prepare=partial(killed_in_evaluation, run.paper)) == -signal.SIGKILL, run.said
    return checkpoints(runs, int(words[-1]) if words else 0)


def test_a_spoilt_checkpoint_is_noticed_wherever_it_is_spoilt(whole, tmp_path):
    """Cut at any place, with any bit flipped, and replaced by another run's."""
    run, expected, _ = whole
    older, newest = killed_at_the_last_step(run, tmp_path / "runs")
    other = killed_at_the_last_step(run, tmp_path / "other", "--seeds", "1")[-1].read_bytes()
    sound, before = newest.read_bytes(), int(older.stem.partition("-")[2])
    draw = random.Random(5)
    spoilt = [other]
    for place in draw.sample(range(len(sound)), MOMENTS[run.paper]):
        spoilt += [sound[:place], sound[:place] + bytes([sound[place] ^ 1 << draw.randrange(8)]) + sound[place + 1 :]]
    for content in spoilt:
        warnings: list[str] = []
        newest.write_bytes(content)
        assert checkpoint.load(seed_folder(tmp_path / "runs"), warnings.append)["samples"] == before
        assert len(warnings) == 1 and str(newest) in warnings[0]
    newest.write_bytes(other)
    assert run.run(tmp_path / "runs") == 0, run.said
    assert f"resuming seed 0 at {before:,} samples" in run.said
    assert bits(tmp_path / "runs") == expected
