"""What a machine can do to a run: one clear line, the documented exit code, and nothing lost."""

import math
import os
import resource
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
    ToySmoke,
    assert_told,
    bits,
    checkpoints,
    content,
    record,
    run,
    save_often,
    seed_folder,
    smoke,
    wait_for,
    without_standin,
)

TINY = ["--passes", 1, "--train-patterns", 20, "--curvature-patterns", 5]  # quick without the kernel too
BAD_NUMBERS = [*TINY, "--eta", "[[20,1e39]]"]


@pytest.fixture(scope="module")
def unharmed(toy_repository, tmp_path_factory):
    """The bits of the smoke run to which nothing happens."""
    folder = tmp_path_factory.mktemp("unharmed")
    assert ToySmoke(toy_repository, folder / "runs", folder / "log").run().code == 0
    return bits(folder / "runs")


# ---- the disk -----------------------------------------------------------------------------------

FULL = ["replace:step-000000000070:ENOSPC", "open:step-000000000020:ENOSPC", "fsync:4:ENOSPC", "replace:record:ENOSPC"]


@pytest.mark.parametrize("fault", FULL)
def test_a_full_disk_ends_with_5_and_what_was_saved_before_is_intact(toy, unharmed, fault):
    full = without_standin(toy.run(fault=fault, prepare=save_often))
    assert_told(full, 5, "No space left on device. What was saved before is intact; run again to go on.")
    assert not [name for name in content(toy.runs) if name.endswith(".writing")]
    again = toy.run()
    assert ("resuming seed 0" in again.err) == (fault != "open:step-000000000020:ENOSPC")
    assert bits(toy.runs) == unharmed


@pytest.mark.parametrize("fault", ["mkdir:seed-0:EROFS", "open:seed-0/lock:EROFS"])
def test_a_read_only_runs_folder_ends_with_5_and_says_what_to_do(toy, fault):
    ended = toy.run(fault=fault)
    assert_told(without_standin(ended), 5, f"{toy.runs}", "Read-only file system", "--runs-dir")
    assert not toy.runs.exists() or not [bytes_ for bytes_ in content(toy.runs).values() if bytes_ is not None]


def no_room_for_a_checkpoint():
    save_often()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**11, resource.RLIM_INFINITY))


def test_a_quota_that_is_met_ends_with_5_and_a_larger_one_goes_on(toy, unharmed):
    assert_told(
        without_standin(toy.run(prepare=no_room_for_a_checkpoint)), 5, "step-000000000020.ckpt: File too large."
    )
    assert toy.run().code == 0
    assert bits(toy.runs) == unharmed


def test_a_disk_that_turns_read_only_on_the_way_ends_with_5(toy):
    assert_told(without_standin(toy.run(fault="open:.writing:EROFS")), 5, "Read-only file system")


def test_a_fault_meets_the_whole_program_as_it_meets_the_forked_one(toy, unharmed):
    words = [sys.executable, "-m", "common", *map(str, smoke(toy.runs, paper="toy"))]
    path = f"{FAULTS}{os.pathsep}{toy.root}"
    env = os.environ | {"PYTHONPATH": path, "FAULT": "replace:record:KILL", "OMP_NUM_THREADS": "1"}
    assert subprocess.run(words, cwd=toy.root, env=env, capture_output=True).returncode == -signal.SIGKILL
    assert toy.run().code == 0
    assert bits(toy.runs) == unharmed


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
def test_a_table_that_cannot_be_written_ends_with_5_and_keeps_the_record(tmp_path):
    with open("/dev/full", "w") as full:
        ended = printed_to(full, *smoke(tmp_path, *TINY))
    assert ended.code == 5 and "Traceback" not in ended.err
    assert record(tmp_path)["status"] == "finished"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_reader_who_leaves_early_hears_nothing_and_no_check_has_passed(words):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = printed_to(writing, *words)
        assert (ended.code, ended.err) == (141, "")
    finally:
        os.close(writing)


def test_a_watcher_who_leaves_stops_no_training(tmp_path):
    """`2>&1 | head`, say: what is said on the way goes nowhere, and the run ends as it would."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(tmp_path / "out", "w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "common", *map(str, smoke(tmp_path / "runs", *TINY))],
            cwd=ROOT, stdout=out, stderr=writing, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    os.close(writing)
    assert done.returncode == 0 and record(tmp_path / "runs")["status"] == "finished"


# ---- twice at once --------------------------------------------------------------------------------


def test_the_same_seed_twice_at_once_ends_the_second_with_5(toy, unharmed):
    first = toy.start(prepare=stop_in_the_second_epoch)
    wait_for(lambda: checkpoints(toy.runs), first)
    second = toy.run(log=toy.log / "second")
    first.send(signal.SIGCONT)
    assert_told(without_standin(second), 5, f"seed 0 of line is already running in {seed_folder(toy.runs)}.")
    assert first.end().code == 0
    assert bits(toy.runs) == unharmed


def stop_in_the_second_epoch():
    from common.training.run import Run

    def stop(run):
        if run.samples == 70:
            run.keep()
            os.kill(os.getpid(), signal.SIGSTOP)

    Run.watchers.append(stop)


def no_locks_here():
    import errno
    import fcntl

    def flock(stream, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = flock


def test_a_disk_without_locks_is_warned_of_and_the_run_goes_on(toy, unharmed):
    ended = toy.run(prepare=no_locks_here)
    assert ended.code == 0
    assert "cannot be locked (No locks available): make sure that no second run uses it." in ended.err
    assert bits(toy.runs) == unharmed


# ---- bad numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", ["true", "false"])
def test_numbers_that_go_bad_end_with_4_a_reason_and_a_table(tmp_path, tmp_path_factory, compiled):
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
    from papers.toy import train

    honest = train.initialise

    def initialise(model, draw):
        honest(model, draw)
        if draw.initial_seed() == train.generator(1, "initial weights").initial_seed():
            model.weight.data.fill_(math.nan)

    train.initialise = initialise


def test_a_seed_whose_numbers_go_bad_does_not_stop_the_others(toy, unharmed):
    ended = toy.run("--seeds", "0,1,2", prepare=bad_in_seed_1)
    assert ended.code == 4 and "Traceback" not in ended.err
    assert [record(toy.runs, seed)["status"] for seed in (0, 1, 2)] == ["finished", "failed", "finished"]
    assert bits(toy.runs, 0) == unharmed
    assert "(n = 2)" in ended.out
    assert "seed 1 failed: the loss in epoch 1 is nan." in ended.complaint[0]
    assert ended.complaint[-1] == "A NaN or an infinity appeared in seed 1 of line."


def bad_while_a_signal_comes():
    from papers.toy import train

    def initialise(model, draw):
        os.kill(os.getpid(), signal.SIGTERM)
        model.weight.data.fill_(math.nan)

    train.initialise = initialise


def test_a_signal_while_a_seed_fails_keeps_the_next_one_from_starting(toy):
    ended = toy.run("--seeds", "0,1", prepare=bad_while_a_signal_comes)
    assert_told(without_standin(ended), 143, "SIGTERM: seed 0 is finished")
    assert record(toy.runs)["status"] == "failed"
    assert not list(toy.runs.glob("*/*/*/seed-1"))


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
    assert ended.code == 0 and "CC=/nonexistent/cc does not start" in ended.err
    assert record(tmp_path)["environment"]["compiled"] is None


def test_with_no_compiler_on_the_path_either(tmp_path):
    ended = run(*smoke(tmp_path, *TINY), log=tmp_path, env={"CC": "", "PATH": str(tmp_path)})
    assert ended.code == 0 and "No C compiler (cc, gcc or clang) was found" in ended.err
    assert record(tmp_path)["environment"]["compiled"] is None


COMPILERS = {
    "fails": ('echo "no header" >&2; exit 1', "no header"),
    "makes nothing": ("exit 0", "No such file or directory"),
    "makes what cannot be loaded": ('while [ "$1" != -o ]; do shift; done; echo no library > "$2"', "file too short"),
}


@pytest.mark.parametrize("kind", COMPILERS)
def test_a_compiler_without_a_use_is_named_and_pytorch_does_the_work(tmp_path, kind):
    does, said = COMPILERS[kind]
    compiler = tmp_path / "broken-cc"
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\n{does}\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    ended = run(*smoke(tmp_path / "runs", *TINY), log=tmp_path, env={"CC": str(compiler)})
    told = [line for line in ended.complaint if "PyTorch does the work" in line]
    assert ended.code == 0 and len(told) == 1
    assert f"{compiler} makes nothing of kernel.c that can be loaded here (" in told[0] and said in told[0]
    assert record(tmp_path / "runs")["environment"]["compiled"] is None
