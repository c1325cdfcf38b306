"""Several processes train as one: killed or stopped, they end alike, and the command goes on to the same bits."""

import os
import signal
from pathlib import Path

import pytest

from tests.contract.helpers import (
    assert_told,
    bits,
    checkpoints,
    processes_of,
    record,
    run,
    seed_folder,
    smoke,
    start,
    wait_for,
    without_standin,
)

TWO = ["--nproc", 2]
LONG = [*TWO, "--epochs", 1000]  # long enough to be met in the middle


@pytest.fixture
def two(toy_repository, tmp_path):
    def begin(*words, runs=tmp_path / "runs", log="log"):
        return start(*smoke(runs, *words, paper="toy"), root=toy_repository, log=tmp_path / log)

    return begin


def wait_until_it_trains(runs, command) -> None:
    wait_for(lambda: list(runs.glob("*/*/*/seed-0/curves.csv")), command)


pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found as Linux lists them")


def test_stopped_and_with_a_process_killed_two_processes_end_the_same(two, tmp_path):
    runs = tmp_path / "runs"
    assert two(*LONG, runs=tmp_path / "whole").end().code == 0

    command = two(*LONG)
    wait_until_it_trains(runs, command)
    command.send(signal.SIGTERM)
    said = "SIGTERM: seed 0 is saved; the same command goes on from here."
    assert_told(without_standin(command.end()), 143, said)
    assert len(checkpoints(runs)) == 1

    (seed_folder(runs) / "curves.csv").unlink()
    command = two(*LONG)
    wait_until_it_trains(runs, command)
    os.kill(processes_of(command)[-1], signal.SIGKILL)
    said = "was killed (signal 9); the same command goes on from what was last saved."
    ended = without_standin(command.end())
    assert "resuming seed 0 at" in ended.err
    assert_told(ended, 5, said)

    ended = two(*LONG).end()
    assert ended.code == 0 and "resuming seed 0 at" in ended.err
    assert bits(runs) == bits(tmp_path / "whole")
    assert record(runs)["environment"]["processes"] == 2


def test_one_process_does_not_go_on_with_what_two_began(two, tmp_path):
    command = two(*LONG)
    wait_until_it_trains(tmp_path / "runs", command)
    command.send(signal.SIGTERM)
    command.end()
    alone = two("--epochs", 1000).end()
    assert_told(without_standin(alone), 2, "was begun elsewhere (processes 2, not 1)", "--other-machine")


def test_an_error_of_all_processes_is_printed_once(two):
    ended = two(*TWO, "--batch-size", 0).end()
    assert_told(ended, 2, "--batch-size 0: Input should be greater than or equal to 1.")
    assert len(ended.complaint) == 1


def test_two_processes_print_one_table(two):
    ended = two(*TWO).end()
    assert ended.code == 0 and ended.out.count("test error") == 1


def test_a_paper_for_one_device_says_so(tmp_path):
    ended = run(*smoke(tmp_path, *TWO), log=tmp_path)
    assert_told(ended, 2, "lenet5_1998 trains on one device: leave out --nproc.")
    assert run("all", *TWO, log=tmp_path).code == 2


def test_the_second_start_of_a_seed_is_refused_with_two_processes_too(two, tmp_path):
    command = two(*LONG)
    wait_until_it_trains(tmp_path / "runs", command)
    second = two(*LONG, log="second").end()
    command.send(signal.SIGTERM)
    command.end()
    assert_told(without_standin(second), 5, "seed 0 of line is already running")
