"""What the contract tests share: commands that run in processes of their own.

A process costs seconds where PyTorch must be imported first. So `start` forks it from a server
that has imported the packages (never anything of the repository) and does nothing else; from
there on it is `python -m common WORDS`, which may be killed like any other.
"""

import contextlib
import json
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).with_name("faults")
TOY = Path(__file__).with_name("toy")
PAPER = "lenet5_1998"
PATIENCE_S = 300
PACKAGES = [
    "pytest", "torch", "numpy", "sklearn.datasets", "sklearn.metrics", "scipy.stats", "pandas", "matplotlib.pyplot",
    "safetensors.torch", "pydantic", "yaml", "click", "rich.progress", "tabulate", "jinja2", "pooch", "requests",
    "pydantic.dataclasses", "torch.nn.parallel", "torch.distributed", "torch._dynamo",
]  # fmt: skip

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(PACKAGES)


@dataclass
class Ended:
    """What is left of a command: its exit code (-9 after kill -9) and what it said."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> list[str]:
        return self.err.splitlines()


class Command:
    """A running `python -m MODULE WORDS`."""

    def __init__(self, words: list, log: Path, **how):
        log.mkdir(parents=True, exist_ok=True)
        self._out, self._err = log / "out", log / "err"
        words = [str(word) for word in words]
        self._process = _server.Process(target=_work, args=(words, self._out, self._err), kwargs=how)
        with contextlib.chdir(ROOT), pytest.MonkeyPatch.context() as patch:  # the first one starts the server
            patch.setenv("OMP_NUM_THREADS", "1")  # tests share the machine
            patch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # where two threads are wanted, they wait without spinning
            self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        return self._process.is_alive()

    def send(self, signal_number: int) -> None:
        os.kill(self._process.pid, signal_number)

    def kill(self) -> Ended:
        self._process.kill()
        return self.end()

    def end(self) -> Ended:
        """Wait for the end."""
        self._process.join(PATIENCE_S)
        if self.running():
            self._process.kill()
            raise AssertionError(f"still running after {PATIENCE_S} s")
        return Ended(self._process.exitcode, self._out.read_text(), self._err.read_text())


def _work(words: list[str], out: Path, err: Path, *, module: str, root: Path, fault: str, env: dict, prepare) -> None:
    """In the forked process: become the command."""
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.pop("REPRO_DATA", None)
    os.environ.update({"NO_PROXY": "*", **env})
    os.chdir(root)
    sys.path.insert(0, str(root))
    if fault:
        runpy.run_path(str(FAULTS / "sitecustomize.py"))["install"](fault)
    if prepare:
        prepare()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def start(*words, log: Path, module="common", root=ROOT, fault="", env=(), prepare=None) -> Command:
    """Start a command.

    Args:
        log: a folder for what it says.
        root: the copy of the repository that it belongs to.
        fault: as in faults/sitecustomize.py.
        module: what `python -m` is to run.
        prepare: a function of a test module, called in the process before the command.
    """
    return Command(list(words), log, module=module, root=root, fault=fault, env=dict(env), prepare=prepare)


def run(*words, **how) -> Ended:
    """Start a command and wait for its end."""
    return start(*words, **how).end()


def smoke(runs_dir: Path, *words, paper: str = PAPER) -> list:
    """The words of a smoke run of seed 0."""
    return [paper, "--preset", "smoke", "--runs-dir", runs_dir, *words]


def seed_folder(runs_dir: Path, seed: int = 0) -> Path:
    """The folder of the only run of this seed."""
    (folder,) = runs_dir.glob(f"*/*/*/seed-{seed}")
    return folder


def record(runs_dir: Path, seed: int = 0) -> dict:
    return json.loads((seed_folder(runs_dir, seed) / "record.json").read_text())


def bits(runs_dir: Path, seed: int = 0) -> str:
    """The hash of the weights that a run ended with."""
    return record(runs_dir, seed)["weights"]["sha256"]


def checkpoints(runs_dir: Path, seed: int = 0) -> list[Path]:
    """Oldest first."""
    return sorted(runs_dir.glob(f"*/*/*/seed-{seed}/step-*.ckpt"))


def wait_for(happened: Callable[[], bool], command: Command) -> None:
    """Wait until it has happened or the command has ended."""
    until = time.monotonic() + PATIENCE_S
    while command.running() and not happened():
        assert time.monotonic() < until, f"not within {PATIENCE_S} s"
        time.sleep(0.005)


def processes_of(command: Command) -> list[int]:
    """The processes that the command started, as Linux lists them."""
    pid = command.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, but for Python's own caches: the bytes of files, None for folders."""
    paths = [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def copy_sources(root: Path, *parts: str) -> None:
    """Copy folders or files of the repository to another root."""
    for part in parts:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / part, root / part)


CITATION = """
cff-version: 1.2.0
title: Papers rebuilt
authors: [{name: The authors}]
version: 0.1.0
date-released: 2024-01-01
"""


def make_toy_repository(root: Path) -> Path:
    """The repository with nothing but the toy paper in it, committed; its data is in data/."""
    copy_sources(root, "common", "reproduce.sh", "requirements.txt", "requirements", "papers/__init__.py")
    shutil.copytree(TOY, root / "papers" / "toy", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "data" / "clouds").mkdir(parents=True)
    shutil.copy(TOY.with_name("toy_clouds.csv"), root / "data" / "clouds" / "clouds.csv")
    shutil.copy(TOY / "README.md", root / "README.md")
    (root / "CITATION.cff").write_text(CITATION)
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "toy"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


@dataclass
class ToySmoke:
    """The smoke run of the toy paper in `root`: nine steps in three epochs of 50 points."""

    root: Path
    runs: Path
    log: Path

    def start(self, *words, log=None, **how) -> Command:
        return start(*smoke(self.runs, *words, paper="toy"), root=self.root, log=log or self.log, **how)

    def run(self, *words, **how) -> Ended:
        return self.start(*words, **how).end()


def without_standin(ended: Ended) -> Ended:
    """Without the lines that are said of every stand-in."""
    lines = [line for line in ended.complaint if not line.startswith("STAND-IN DATA")]
    return Ended(ended.code, ended.out, "\n".join(lines))


class Killed(BaseException):
    """Nothing catches it: a run ends as kill -9 ends it."""


@contextlib.contextmanager
def watching(watch: Callable):
    """Within this process: `watch` is called with the run at the end of every step."""
    from common.training.run import Run

    Run.watchers.append(watch)
    try:
        yield
    finally:
        Run.watchers.remove(watch)


@contextlib.contextmanager
def killed_after(advances: int):
    """Within this process: the run that is on keeps its state at the end of its `advances`-th step, and dies."""
    done = 0

    def kill(run) -> None:
        nonlocal done
        done += 1
        if done == advances:
            run.keep()
            raise Killed

    with watching(kill), pytest.raises(Killed):
        yield


def save_often() -> None:
    """To `prepare` a command: it keeps its state at every step, and writes its curves only at the end."""
    import common.training.run
    from common.training.run import Run

    common.training.run.SECONDS_BETWEEN_LOGS = float("inf")
    Run.watchers.append(Run.keep)


def save_often_on_two_threads() -> None:
    """To `prepare` a command: it also multiplies on two threads, where a sum must not depend on which is first."""
    import torch

    save_often()
    torch.set_num_threads(2)


def assert_told(ended: Ended, code: int, *said: str) -> None:
    """The documented exit code, and one or two clear lines that say it."""
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    assert 1 <= len(ended.complaint) <= 2, ended.err
    for words in said:
        assert words in ended.err, ended.err
