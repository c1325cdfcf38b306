"""What a machine can do to a run: one clear line, the documented exit code, and nothing lost."""

import math
import os
import shutil
import signal
import stat
import subprocess
import sys

import pytest

from tests.contract.helpers import (
    FAULTS,
    ROOT,
    Ended,
    assert_told,
    bits,
    checkpoints,
    content,
    record,
    run,
    seed_folder,
    smoke,
    start,
    wait_for,
)

TINY = ["--passes", 1, "--train-patterns", 20, "--curvature-patterns", 5]  # quick without the kernel too
BAD_NUMBERS = [*TINY, "--eta", "[[20,1e39]]"]


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    """The bits of the smoke run to which nothing happens."""
    folder = tmp_path_factory.mktemp("unharmed")
    assert run(*smoke(folder), log=folder).code == 0
    return bits(folder)


# ---- the disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["fsync:5:ENOSPC", "replace:5:ENOSPC", "open:.step-:ENOSPC", "fsync:7:ENOSPC"])
def test_a_full_disk_ends_with_5_and_what_was_saved_before_is_intact(tmp_path, tmp_path_factory, unharmed, fault):
    log = tmp_path_factory.mktemp("log")
    full = run(*smoke(tmp_path), log=log, fault=fault)
    assert_told(full, 5, "No space left on device. What was saved before is intact; run again to go on.")
    assert not [name for name in content(tmp_path) if name.endswith(".writing")]
    again = run(*smoke(tmp_path), log=log)
    assert ("resuming seed 0" in again.err) == (fault != "open:.step-:ENOSPC")
    assert bits(tmp_path) == unharmed


@pytest.mark.parametrize("fault", ["mkdir:seed-0:EROFS", "open:seed-0/lock:EROFS"])
def test_a_read_only_runs_folder_ends_with_5_and_says_what_to_do(tmp_path, tmp_path_factory, fault):
    ended = run(*smoke(tmp_path), log=tmp_path_factory.mktemp("log"), fault=fault)
    assert_told(ended, 5, f"{tmp_path}", "Read-only file system", "--runs-dir")
    assert not [bytes_ for bytes_ in content(tmp_path).values() if bytes_ is not None]


def test_a_disk_that_turns_read_only_on_the_way_ends_with_5(tmp_path, tmp_path_factory):
    ended = run(*smoke(tmp_path), log=tmp_path_factory.mktemp("log"), fault="open:.writing:EROFS")
    assert_told(ended, 5, "Read-only file system")


def test_a_fault_meets_the_whole_program_as_it_meets_the_forked_one(tmp_path, tmp_path_factory, unharmed):
    words = [sys.executable, "-m", "common", *map(str, smoke(tmp_path))]
    path = f"{FAULTS}{os.pathsep}{ROOT}"
    env = os.environ | {"PYTHONPATH": path, "FAULT": "replace:5:KILL", "OMP_NUM_THREADS": "1"}
    assert subprocess.run(words, cwd=ROOT, env=env, capture_output=True).returncode == -signal.SIGKILL
    assert "resuming seed 0 at 300 samples" in run(*smoke(tmp_path), log=tmp_path_factory.mktemp("log")).err
    assert bits(tmp_path) == unharmed


# ---- what is printed ------------------------------------------------------------------------------

COMMANDS = [[], ["--json"], ["--help"], ["cite", "lenet5_1998"], ["cite", "lenet5_1998", "--json"], ["data"]]


def printed_to(stream, *words) -> Ended:
    done = subprocess.run(
        [sys.executable, "-m", "common", *map(str, words)],
        cwd=ROOT, stdout=stream, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return Ended(done.returncode, "", done.stderr)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_result_that_cannot_be_written_ends_with_5(words):
    with open("/dev/full", "w") as full:
        assert_told(printed_to(full, *words), 5, "The output cannot be written: No space left on device.")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
def test_a_table_that_cannot_be_written_ends_with_5_and_the_record_is_kept(tmp_path):
    with open("/dev/full", "w") as full:
        ended = printed_to(full, *smoke(tmp_path, *TINY))
    assert ended.code == 5 and "Traceback" not in ended.err
    assert record(tmp_path)["status"] == "finished"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_reader_who_leaves_early_hears_nothing(words):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert printed_to(writing, *words).err == ""
    finally:
        os.close(writing)


# ---- twice at once --------------------------------------------------------------------------------


def test_the_same_seed_twice_at_once_ends_the_second_with_5_and_does_not_harm_the_first(tmp_path, unharmed):
    runs = tmp_path / "runs"
    first = start(*smoke(runs), log=tmp_path / "first", prepare=stop_after_the_first_pass)
    wait_for(lambda: checkpoints(runs), first)
    second = run(*smoke(runs), log=tmp_path / "second")
    first.send(signal.SIGCONT)
    assert_told(second, 5, f"seed 0 of lenet5 is already running in {seed_folder(runs)}.")
    assert first.end().code == 0
    assert bits(runs) == unharmed


def stop_after_the_first_pass():
    from common.training.run import Run

    honest = Run.keep

    def keep(run, state):
        honest(run, state)
        if state["pass"] == 2:
            os.kill(os.getpid(), signal.SIGSTOP)

    Run.keep = keep


# ---- bad numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", ["true", "false"])
def test_numbers_that_go_bad_end_with_4_a_record_that_says_why_and_a_table(tmp_path, tmp_path_factory, compiled):
    log = tmp_path_factory.mktemp("log")
    words = smoke(tmp_path, *BAD_NUMBERS, "--compiled", compiled)
    ended = run(*words, log=log)
    failed = record(tmp_path)
    assert (failed["status"], failed["metrics"], failed["weights"]) == ("failed", {}, None)
    assert failed["failure"].endswith(" is nan")
    compiler = any(map(shutil.which, ("cc", "gcc", "clang")))
    assert bool(failed["environment"]["compiled"]) == (compiled == "true" and compiler)
    assert_failed(ended, f"seed 0 failed: {failed['failure']}.", "A NaN or an infinity appeared in seed 0 of lenet5.")

    before = content(tmp_path)
    again = run(*words, log=log)
    assert_failed(
        again,
        f"seed 0 failed before: {failed['failure']}. --fresh",
        "A NaN or an infinity appeared in seed 0 of lenet5.",
    )
    assert content(tmp_path) == before
    assert_failed(run(*words, "--fresh", log=log), failed["failure"])


def assert_failed(ended, *said):
    """Exit code 4 and the table; beside what is always said of a stand-in, a line a seed and one that closes."""
    complaint = [line for line in ended.complaint if not line.startswith("STAND-IN DATA")]
    assert_told(Ended(ended.code, ended.out, "\n".join(complaint)), 4, *said)
    assert "verdict of this run" in ended.out and "failed" in ended.out


def bad_in_seed_1():
    from common.training.run import Run

    honest = Run.require_finite
    Run.require_finite = lambda run, value, what: honest(run, math.nan if run.seed == 1 else value, what)


def test_a_seed_whose_numbers_go_bad_does_not_keep_the_others_from_running(tmp_path, unharmed):
    ended = run(*smoke(tmp_path, "--seeds", "0,1,2"), log=tmp_path, prepare=bad_in_seed_1)
    assert ended.code == 4 and "Traceback" not in ended.err
    assert [record(tmp_path, seed)["status"] for seed in (0, 1, 2)] == ["finished", "failed", "finished"]
    assert bits(tmp_path, 0) == unharmed
    assert "(n = 2)" in ended.out
    assert "seed 1 failed: the loss in pass 1 is nan." in ended.complaint[0]
    assert ended.complaint[-1] == "A NaN or an infinity appeared in seed 1 of lenet5."


def bad_while_a_signal_comes():
    from common.training.run import Run

    honest = Run.require_finite

    def require_finite(run, value, what):
        os.kill(os.getpid(), signal.SIGTERM)
        honest(run, math.nan, what)

    Run.require_finite = require_finite


def test_a_signal_while_a_seed_fails_keeps_the_next_one_from_starting(tmp_path):
    ended = run(*smoke(tmp_path, "--seeds", "0,1"), log=tmp_path, prepare=bad_while_a_signal_comes)
    assert_told(ended, 143, "SIGTERM: seed 0 is over")
    assert record(tmp_path)["status"] == "failed"
    assert not list(tmp_path.glob("*/*/*/seed-1"))


def nan_among_the_details():
    from papers.lenet5_1998 import eval as measuring

    honest = measuring.evaluate

    def evaluate(*words):
        measured = honest(*words)
        measured.details["confusion_matrix"][3][4] = math.nan
        return measured

    measuring.evaluate = evaluate


def test_nan_among_the_details_is_a_failure_too(tmp_path):
    ended = run(*smoke(tmp_path, *TINY), log=tmp_path, prepare=nan_among_the_details)
    assert_failed(ended, "seed 0 failed: details.confusion_matrix.3.4 is nan.")
    assert record(tmp_path)["failure"] == "details.confusion_matrix.3.4 is nan"


# ---- the compiler ---------------------------------------------------------------------------------


def test_without_a_c_compiler_pytorch_does_the_work_and_it_is_said(tmp_path):
    ended = run(*smoke(tmp_path, *TINY), log=tmp_path, env={"CC": "/nonexistent/cc"})
    assert ended.code == 0 and "No C compiler (cc, gcc or clang) was found" in ended.err
    assert record(tmp_path)["environment"]["compiled"] is None


def test_with_no_compiler_on_the_path_either(tmp_path):
    ended = run(*smoke(tmp_path, *TINY), log=tmp_path, env={"CC": "", "PATH": str(tmp_path)})
    assert ended.code == 0 and "No C compiler (cc, gcc or clang) was found" in ended.err
    assert record(tmp_path)["environment"]["compiled"] is None


def test_a_compiler_that_fails_is_named_and_pytorch_does_the_work(tmp_path):
    compiler = tmp_path / "broken-cc"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit\necho "no header" >&2\nexit 1\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    ended = run(*smoke(tmp_path / "runs", *TINY), log=tmp_path, env={"CC": str(compiler)})
    assert ended.code == 0 and f"{compiler} cannot compile kernel.c (no header)" in ended.err
    assert record(tmp_path / "runs")["environment"]["compiled"] is None
