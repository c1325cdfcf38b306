"""The same command ends with the same bits, whatever happens on the way.

The toy paper is run as a command of its own process, may be killed like any other, and is compared by the hash over
the names, types, shapes and bits of the weights that it ends with. What is special in a paper is tested with it.
"""

import itertools
import json
import os
import random
import shutil
import signal
import time
from functools import partial

import pytest

from tests.contract.helpers import (
    ToySmoke,
    assert_told,
    bits,
    checkpoints,
    content,
    record,
    save_often,
    seed_folder,
    wait_for,
    without_standin,
)

FINISHED = ["curves.csv", "lock", "record.json", "run.json", "weights.safetensors"]


@pytest.fixture(scope="module")
def uninterrupted(toy_repository, tmp_path_factory):
    """The bits of the run that everything else is compared with."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert ToySmoke(toy_repository, folder / "runs", folder / "log").run().code == 0
    return bits(folder / "runs")


# ---- what must not matter, and what must --------------------------------------------------


def test_the_same_command_gives_the_same_bits(toy, uninterrupted):
    assert toy.run().code == 0
    assert bits(toy.runs) == uninterrupted
    assert list(content(seed_folder(toy.runs))) == FINISHED


def test_another_seed_gives_other_bits(toy, uninterrupted):
    assert toy.run("--seeds", "0,1").code == 0
    assert bits(toy.runs, 0) == uninterrupted != bits(toy.runs, 1)


def sources_hashed_once():
    from common.training import provenance

    honest, hashed = provenance.source_hash, []

    def source_hash(paper):
        assert not hashed, "the sources were hashed before"
        hashed.append(honest(paper))
        return hashed[0]

    provenance.source_hash = source_hash


def test_all_seeds_of_a_command_have_the_sources_that_it_began_with(toy):
    """Whoever edits them while it runs edits what is no longer read."""
    ended = toy.run("--seeds", "0,1", prepare=sources_hashed_once)
    assert ended.code == 0, ended.err
    assert record(toy.runs, 0)["code"] == record(toy.runs, 1)["code"]


def without_evaluation():
    from papers.toy import train

    train.error_percent = lambda predicted, label: 0.0


def test_evaluating_between_epochs_does_not_disturb(toy, uninterrupted):
    assert toy.run(prepare=without_evaluation).code == 0
    assert record(toy.runs)["curves"]["test_error"] == [0.0, 0.0, 0.0]  # nothing was measured
    assert bits(toy.runs) == uninterrupted


# ---- kill -9 --------------------------------------------------------------------------------


def save_often_and_slowly():
    save_often()
    from common.training.run import Run

    Run.watchers.append(lambda run: time.sleep(0.05))


def test_killed_at_random_moments_it_ends_with_the_same_bits(toy, uninterrupted):
    delay = random.Random(1998)
    kills = resumed = 0
    while kills < 8:
        before = checkpoints(toy.runs)
        command = toy.start(prepare=save_often_and_slowly)
        wait_for(lambda: checkpoints(toy.runs) != before, command)  # noqa: B023
        time.sleep(delay.uniform(0, 0.1))
        ended = command.kill()
        resumed += "resuming seed 0 at" in ended.err
        if ended.code == 0:
            break
        kills += 1
    assert toy.run().code == 0
    assert kills >= 3 and resumed >= 2
    assert bits(toy.runs) == uninterrupted
    assert list(content(seed_folder(toy.runs))) == FINISHED


WRITTEN = ["run.json", "step-000000000020", "step-000000000070", "step-000000000150", "curves", "weights", "record"]


@pytest.mark.parametrize("name", WRITTEN)
def test_killed_before_the_rename_of_any_file_it_ends_the_same(toy, uninterrupted, name):
    assert toy.run(fault=f"replace:{name}:KILL", prepare=save_often).code == -signal.SIGKILL
    ended = toy.run()
    assert ended.code == 0, ended.err
    assert bits(toy.runs) == uninterrupted
    assert list(content(seed_folder(toy.runs))) == FINISHED


def test_killed_before_the_fsync_of_a_checkpoint_it_leaves_nothing(toy, uninterrupted):
    assert toy.run(fault="fsync:5:KILL", prepare=save_often).code == -signal.SIGKILL
    assert [name for name in content(seed_folder(toy.runs)) if name.endswith(".writing")]
    assert "resuming seed 0 at 50 samples" in toy.run().err
    assert bits(toy.runs) == uninterrupted
    assert list(content(seed_folder(toy.runs))) == FINISHED


# ---- would this comparison notice? -----------------------------------------------------------


def sabotage(change):
    from common.training import checkpoint

    honest = checkpoint.load

    def load(folder, warn):
        state = honest(folder, warn)
        change(state)
        return state

    checkpoint.load = load


def a_step_skipped():
    sabotage(lambda state: state.update(step=state["step"] + 1))


def an_epoch_again():
    sabotage(lambda state: state.update(epoch=state["epoch"] - 1))


def other_momentum():
    sabotage(lambda state: state["parts"]["optimiser"]["state"][0]["momentum_buffer"].mul_(1.0001))


def one_weight_off():
    sabotage(lambda state: state["parts"]["model"]["weight"].view(-1)[0].add_(1e-3))


@pytest.mark.parametrize("mistake", [a_step_skipped, an_epoch_again, other_momentum, one_weight_off])
def test_a_resume_with_a_mistake_gives_other_bits(toy, uninterrupted, mistake):
    killed_in_the_second_epoch(toy)
    ended = toy.run(prepare=mistake)
    assert ended.code == 0 and "resuming seed 0 at 70 samples" in ended.err
    assert bits(toy.runs) != uninterrupted


def a_loss_off():
    sabotage(lambda state: state["at"].update(loss=state["at"]["loss"] + 1.0))


def test_what_is_summed_up_on_the_way_is_resumed_too(toy):
    assert toy.run().code == 0
    whole = record(toy.runs)["curves"]
    for mistake, same in ((None, True), (a_loss_off, False)):
        shutil.rmtree(toy.runs)
        killed_in_the_second_epoch(toy)
        assert toy.run(prepare=mistake).code == 0
        assert (record(toy.runs)["curves"] == whole) == same


def killed_in_the_second_epoch(toy):
    """Leaves the checkpoints of 50 and of 70 points."""
    assert toy.run(fault="replace:step-000000000090:KILL", prepare=save_often).code == -signal.SIGKILL
    assert len(checkpoints(toy.runs)) == 2


# ---- SIGTERM, SIGINT --------------------------------------------------------------------------


def signals_after_70_points(*numbers):
    from common.training.run import Run

    def send(run):
        if run.samples == 70:
            for number in numbers:
                os.kill(os.getpid(), number)

    Run.watchers.append(send)


@pytest.mark.parametrize(
    ("number", "fresh", "how"),
    [(signal.SIGTERM, [], ""), (signal.SIGINT, [], ""), (signal.SIGINT, ["--fresh"], " without --fresh")],
)
def test_a_signal_saves_says_so_and_the_command_goes_on(toy, uninterrupted, number, fresh, how):
    ended = toy.run(*fresh, prepare=partial(signals_after_70_points, number))
    said = f"{number.name}: seed 0 is saved; the same command{how} goes on from here."
    assert_told(without_standin(ended), 128 + number, said)
    assert "resuming seed 0 at 90 samples" in toy.run().err
    assert bits(toy.runs) == uninterrupted


def test_a_second_ctrl_c_does_not_wait_for_the_next_step(toy, uninterrupted):
    ended = toy.run(prepare=partial(signals_after_70_points, signal.SIGINT, signal.SIGINT))
    assert_told(without_standin(ended), 130, "stopped at once; what was saved before is intact.")
    assert not checkpoints(toy.runs)


def test_a_sigterm_after_ctrl_c_still_waits_for_the_step_to_be_saved(toy, uninterrupted):
    """Who started several processes passes on the Ctrl-C that they have had from the terminal already."""
    ended = toy.run(prepare=partial(signals_after_70_points, signal.SIGINT, signal.SIGTERM))
    assert ended.code in (130, 143) and "seed 0 is saved" in ended.err
    assert len(checkpoints(toy.runs)) == 1


def signal_while_seed_0_is_measured():
    from papers.toy import eval as measuring

    honest = measuring.evaluate

    def evaluate(*words):
        os.kill(os.getpid(), signal.SIGTERM)
        return honest(*words)

    measuring.evaluate = evaluate


def test_a_signal_after_the_last_step_keeps_the_next_seed_from_starting(toy, uninterrupted):
    ended = toy.run("--seeds", "0,1", prepare=signal_while_seed_0_is_measured)
    assert_told(without_standin(ended), 143, "SIGTERM: seed 0 is finished")
    assert bits(toy.runs) == uninterrupted
    assert not list(toy.runs.glob("*/*/*/seed-1"))


# ---- the clock ----------------------------------------------------------------------------------


def a_clock_that_jumps_back():
    save_often()
    hours = itertools.count(start=400_000, step=-1)
    time.time = lambda: next(hours) * 3600.0


def test_a_clock_that_jumps_back_changes_no_bit_and_no_duration(toy, uninterrupted):
    killed_in_the_second_epoch(toy)
    assert toy.run(prepare=a_clock_that_jumps_back).code == 0
    assert bits(toy.runs) == uninterrupted
    assert 0 < record(toy.runs)["times"]["training_seconds"] < 300


# ---- damaged checkpoints ------------------------------------------------------------------------


def flip_a_bit(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_bit, cut, empty])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(toy, uninterrupted, damage):
    killed_in_the_second_epoch(toy)
    newest = checkpoints(toy.runs)[-1]
    damage(newest)
    ended = toy.run()
    assert f"{newest} is damaged or another run's, and was skipped." in ended.err
    assert "resuming seed 0 at 50 samples" in ended.err
    assert bits(toy.runs) == uninterrupted


def test_where_all_checkpoints_are_damaged_it_starts_over(toy, uninterrupted):
    killed_in_the_second_epoch(toy)
    for path in checkpoints(toy.runs):
        flip_a_bit(path)
    ended = toy.run()
    assert ended.err.count("is damaged or another run's, and was skipped.") == 2 and "resuming" not in ended.err
    assert bits(toy.runs) == uninterrupted


# ---- finished, changed ---------------------------------------------------------------------------


def test_a_finished_run_is_reused_and_fresh_runs_it_again(toy):
    toy.run()
    before = content(seed_folder(toy.runs))
    again = toy.run()
    assert again.code == 0 and "seed 0 was finished before and is shown as it was; --fresh runs it again." in again.err
    assert content(seed_folder(toy.runs)) == before
    fresh = toy.run("--fresh")
    assert fresh.code == 0 and "finished before" not in fresh.err
    after = content(seed_folder(toy.runs))
    assert after["record.json"] != before["record.json"]  # other times
    assert after["weights.safetensors"] == before["weights.safetensors"]


def test_fresh_forgets_what_an_interrupted_run_had_reached(toy, uninterrupted):
    killed_in_the_second_epoch(toy)
    assert "resuming" not in toy.run("--fresh").err
    assert bits(toy.runs) == uninterrupted


@pytest.mark.parametrize("part", ["recipe", "data", "sources"])
def test_what_was_begun_with_something_else_is_not_resumed(toy, part):
    killed_in_the_second_epoch(toy)
    file = seed_folder(toy.runs) / "run.json"
    begun = json.loads(file.read_text())
    begun["identity"][part] = "another"
    file.write_text(json.dumps(begun))
    before = content(toy.runs)
    assert_told(without_standin(toy.run()), 2, f"{part} changed since the run began.", "--fresh")
    assert content(toy.runs) == before
    assert toy.run("--fresh").code == 0


def test_what_was_begun_on_another_processor_goes_on_if_asked_to(toy, uninterrupted):
    killed_in_the_second_epoch(toy)
    file = seed_folder(toy.runs) / "run.json"
    begun = json.loads(file.read_text())
    here = begun["environments"][0]["instruction_set"]
    begun["environments"][0]["instruction_set"] = "AVX0"
    file.write_text(json.dumps(begun))
    before = content(toy.runs)
    said = f"was begun elsewhere (instruction set AVX0, not {here}): the bits would differ."
    assert_told(without_standin(toy.run()), 2, said, "--other-machine", "--fresh")
    assert content(toy.runs) == before
    ended = toy.run("--other-machine")
    assert ended.code == 0 and "resuming seed 0 at 70 samples" in ended.err
    kept = record(toy.runs)
    assert [each["instruction_set"] for each in kept["earlier_environments"]] == ["AVX0"]
    assert kept["environment"]["instruction_set"] == here
    assert bits(toy.runs) == uninterrupted  # here nothing else was different


def data_that_cannot_be_read():
    from papers.toy import train

    from common.base.errors import DataError

    def load(located):
        raise DataError("clouds.csv: cannot be read.")

    train.load = load


def test_a_start_that_fails_before_training_leaves_nothing_to_refuse(toy, uninterrupted):
    assert toy.run(prepare=data_that_cannot_be_read).code == 3
    assert not (seed_folder(toy.runs) / "run.json").exists()
    assert toy.run().code == 0
    assert bits(toy.runs) == uninterrupted
