"""The same command ends with the same bits, whatever happens on the way.

What is compared is the hash over the names, types, shapes and bits of the weights that a run ends
with, as its record has it. No paper here has loader workers, so there is no number of them that
could matter.
"""

import json
import os
import random
import signal
import time
from functools import partial

import pytest

from tests.contract.helpers import (
    assert_told,
    bits,
    checkpoints,
    content,
    record,
    run,
    save_often,
    seed_folder,
    smoke,
    start,
    wait_for,
)

LONG = ["--passes", 3, "--train-patterns", 1400]  # three chunks of updates a pass
SLOW = ["--compiled", "false", "--passes", 2, "--train-patterns", 60, "--curvature-patterns", 10]
WRITES = 7  # of a short run: run.json; curves.csv and a checkpoint in each of two passes; weights; record
FINISHED = ["curves.csv", "lock", "record.json", "run.json", "weights.safetensors"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The bits of the runs that everything else is compared with, by their further words."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    hashes = {}
    for name, words in (("short", []), ("long", LONG), ("slow", SLOW)):
        assert run(*smoke(folder / name, *words), log=folder).code == 0
        hashes[name] = bits(folder / name)
    return hashes


def save_often_in_short_chunks():
    from papers.lenet5_1998 import train

    save_often()
    train.CHUNK = 20


# ---- what must not matter, and what must --------------------------------------------------


def test_the_same_command_gives_the_same_bits(tmp_path, uninterrupted):
    assert run(*smoke(tmp_path), log=tmp_path).code == 0
    assert bits(tmp_path) == uninterrupted["short"]
    assert record(tmp_path)["environment"]["compiled"]


def test_without_the_kernel_the_same_command_gives_the_same_bits(tmp_path, uninterrupted):
    assert run(*smoke(tmp_path, *SLOW), log=tmp_path).code == 0
    assert bits(tmp_path) == uninterrupted["slow"]
    assert record(tmp_path)["environment"]["compiled"] is None


def test_another_seed_gives_other_bits(tmp_path, uninterrupted):
    assert run(*smoke(tmp_path, "--seeds", "0,1"), log=tmp_path).code == 0
    assert bits(tmp_path, 0) == uninterrupted["short"] != bits(tmp_path, 1)


def sources_hashed_once():
    from common.training import provenance

    honest, hashed = provenance.source_hash, []

    def source_hash(paper):
        assert not hashed, "the sources were hashed before"
        hashed.append(honest(paper))
        return hashed[0]

    provenance.source_hash = source_hash


def test_all_seeds_of_a_command_have_the_sources_that_it_began_with(tmp_path):
    """Whoever edits them while it runs edits what is no longer read."""
    words = smoke(tmp_path, "--passes", 1, "--train-patterns", 20, "--curvature-patterns", 5, "--seeds", "0,1")
    ended = run(*words, log=tmp_path, prepare=sources_hashed_once)
    assert ended.code == 0, ended.err
    assert record(tmp_path, 0)["code"] == record(tmp_path, 1)["code"]


def without_evaluation():
    import torch

    from papers.lenet5_1998 import train

    train.classify = lambda model, images, *_: torch.zeros(len(images), dtype=torch.long)


def test_evaluating_between_passes_does_not_disturb(tmp_path, uninterrupted):
    assert run(*smoke(tmp_path), log=tmp_path, prepare=without_evaluation).code == 0
    assert len(set(record(tmp_path)["curves"]["test_error"])) == 1  # nothing was measured
    assert bits(tmp_path) == uninterrupted["short"]


# ---- kill -9 --------------------------------------------------------------------------------


def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, uninterrupted):
    delay = random.Random(1998)
    kills = resumed = 0
    while kills < 8:
        before = checkpoints(tmp_path)
        command = start(*smoke(tmp_path, *LONG), log=tmp_path, prepare=save_often)
        wait_for(lambda: checkpoints(tmp_path) != before, command)  # noqa: B023
        time.sleep(delay.uniform(0, 0.2))
        ended = command.kill()
        resumed += "resuming seed 0 at" in ended.err
        if ended.code == 0:
            break
        kills += 1
    assert run(*smoke(tmp_path, *LONG), log=tmp_path).code == 0
    assert kills >= 3 and resumed >= 2
    assert bits(tmp_path) == uninterrupted["long"]
    assert list(content(seed_folder(tmp_path))) == FINISHED


@pytest.mark.parametrize("write", range(1, WRITES + 1))
def test_killed_before_the_rename_of_any_write_it_ends_with_the_same_bits(tmp_path, uninterrupted, write):
    assert run(*smoke(tmp_path), log=tmp_path, fault=f"replace:{write}:KILL").code == -signal.SIGKILL
    ended = run(*smoke(tmp_path), log=tmp_path)
    assert ended.code == 0, ended.err
    assert bits(tmp_path) == uninterrupted["short"]
    assert list(content(seed_folder(tmp_path))) == FINISHED


@pytest.mark.parametrize("variant", ["lenet5-distorted", "blog"])
def test_another_variant_too_ends_killed_or_not_with_the_same_bits(tmp_path, variant):
    words = ["--variant", variant, "--train-patterns", 60]
    assert run(*smoke(tmp_path / "whole", *words), log=tmp_path).code == 0
    parts = smoke(tmp_path / "parts", *words)
    fault = "replace:4:KILL"  # after the checkpoint of the first pass
    assert run(*parts, log=tmp_path, fault=fault, prepare=save_often_in_short_chunks).code == -signal.SIGKILL
    ended = run(*parts, log=tmp_path)
    assert ended.code == 0 and "resuming seed 0 at" in ended.err
    assert bits(tmp_path / "parts") == bits(tmp_path / "whole")


def test_killed_before_the_fsync_of_a_checkpoint_it_ends_with_the_same_bits_and_leaves_nothing(tmp_path, uninterrupted):
    words = smoke(tmp_path, *LONG)
    assert run(*words, log=tmp_path, fault="fsync:3:KILL", prepare=save_often).code == -signal.SIGKILL
    assert [name for name in content(seed_folder(tmp_path)) if name.endswith(".writing")]
    assert "resuming seed 0 at 500 samples" in run(*words, log=tmp_path).err
    assert bits(tmp_path) == uninterrupted["long"]
    assert list(content(seed_folder(tmp_path))) == FINISHED


def test_a_short_run_has_as_many_writes_as_that(tmp_path):
    assert run(*smoke(tmp_path), log=tmp_path, fault=f"replace:{WRITES + 1}:KILL").code == 0


def test_without_the_kernel_too_a_killed_run_ends_with_the_same_bits(tmp_path, uninterrupted):
    words = smoke(tmp_path, *SLOW)
    assert run(*words, log=tmp_path, fault="replace:4:KILL", prepare=save_often_in_short_chunks).code == -signal.SIGKILL
    ended = run(*words, log=tmp_path)
    assert "resuming seed 0 at 40 samples" in ended.err
    assert bits(tmp_path) == uninterrupted["slow"]


# ---- would this comparison notice? -----------------------------------------------------------


def sabotage(**changes):
    from common.training.run import Run

    honest = Run.resume

    def resume(run):
        state = honest(run)
        return state | {name: change(state[name]) for name, change in changes.items()}

    Run.resume = resume


def position_off_by_one():
    sabotage(position=lambda position: position + 1)


def other_rates():
    sabotage(rates=lambda rates: rates * 1.0001)


def one_weight_off():
    sabotage(weights=lambda weights: weights.index_fill(0, weights.argmax(), 0.0))


@pytest.mark.parametrize("mistake", [position_off_by_one, other_rates, one_weight_off])
def test_a_resume_with_a_mistake_gives_other_bits(tmp_path, uninterrupted, mistake):
    killed_in_the_second_pass(tmp_path)
    ended = run(*smoke(tmp_path, *LONG), log=tmp_path, prepare=mistake)
    assert ended.code == 0 and "resuming seed 0 at 1,900 samples" in ended.err
    assert bits(tmp_path) != uninterrupted["long"]


def killed_in_the_second_pass(runs_dir):
    """Leaves the checkpoints of 1,400 and of 1,900 updates."""
    fault = "replace:8:KILL"
    assert run(*smoke(runs_dir, *LONG), log=runs_dir, fault=fault, prepare=save_often).code == -signal.SIGKILL
    assert len(checkpoints(runs_dir)) == 2


# ---- SIGTERM, SIGINT --------------------------------------------------------------------------


def signal_in_the_second_pass(number):
    from common.training.run import Run

    honest = Run.advance

    def advance(run, *words):
        if run._bar.done == 1400:
            os.kill(os.getpid(), number)
        honest(run, *words)

    Run.advance = advance


@pytest.mark.parametrize(
    ("number", "fresh", "how"),
    [(signal.SIGTERM, [], ""), (signal.SIGINT, [], ""), (signal.SIGINT, ["--fresh"], " without --fresh")],
)
def test_a_signal_saves_says_so_and_the_command_goes_on_to_the_same_bits(tmp_path, uninterrupted, number, fresh, how):
    ended = run(*smoke(tmp_path, *LONG, *fresh), log=tmp_path, prepare=partial(signal_in_the_second_pass, number))
    assert_told(ended, 128 + number, f"{number.name}: seed 0 is saved; the same command{how} goes on from here.")
    assert len(ended.complaint) == 1
    assert "resuming seed 0 at 1,900 samples" in run(*smoke(tmp_path, *LONG), log=tmp_path).err
    assert bits(tmp_path) == uninterrupted["long"]


def signal_while_seed_0_is_measured():
    from papers.lenet5_1998 import eval as measuring

    honest = measuring.evaluate

    def evaluate(*words):
        os.kill(os.getpid(), signal.SIGTERM)
        return honest(*words)

    measuring.evaluate = evaluate


def test_a_signal_after_the_last_update_keeps_the_next_seed_from_starting(tmp_path, uninterrupted):
    ended = run(*smoke(tmp_path, "--seeds", "0,1"), log=tmp_path, prepare=signal_while_seed_0_is_measured)
    assert_told(ended, 143, "SIGTERM: seed 0 is over")
    assert bits(tmp_path) == uninterrupted["short"]
    assert not list(tmp_path.glob("*/*/*/seed-1"))


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
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(tmp_path, uninterrupted, damage):
    killed_in_the_second_pass(tmp_path)
    newest = checkpoints(tmp_path)[-1]
    damage(newest)
    ended = run(*smoke(tmp_path, *LONG), log=tmp_path)
    assert f"{newest} is damaged and was passed over." in ended.err
    assert "resuming seed 0 at 1,400 samples" in ended.err
    assert bits(tmp_path) == uninterrupted["long"]


def test_where_all_checkpoints_are_damaged_it_starts_over(tmp_path, uninterrupted):
    killed_in_the_second_pass(tmp_path)
    for path in checkpoints(tmp_path):
        flip_a_bit(path)
    ended = run(*smoke(tmp_path, *LONG), log=tmp_path)
    assert ended.err.count("is damaged and was passed over.") == 2 and "resuming" not in ended.err
    assert bits(tmp_path) == uninterrupted["long"]


# ---- finished, changed ---------------------------------------------------------------------------


def test_a_finished_run_is_reused_and_fresh_runs_it_again(tmp_path):
    run(*smoke(tmp_path), log=tmp_path)
    before = content(seed_folder(tmp_path))
    again = run(*smoke(tmp_path), log=tmp_path)
    assert again.code == 0 and "seed 0 was finished before and is shown as it was; --fresh runs it again." in again.err
    assert content(seed_folder(tmp_path)) == before
    fresh = run(*smoke(tmp_path, "--fresh"), log=tmp_path)
    assert fresh.code == 0 and "finished before" not in fresh.err
    after = content(seed_folder(tmp_path))
    assert after["record.json"] != before["record.json"]  # other times
    assert after["weights.safetensors"] == before["weights.safetensors"]


def test_fresh_forgets_what_an_interrupted_run_had_reached(tmp_path, uninterrupted):
    killed_in_the_second_pass(tmp_path)
    assert "resuming" not in run(*smoke(tmp_path, *LONG, "--fresh"), log=tmp_path).err
    assert bits(tmp_path) == uninterrupted["long"]


def test_what_was_begun_with_another_recipe_data_or_sources_is_not_resumed(tmp_path, tmp_path_factory):
    log = tmp_path_factory.mktemp("log")
    assert run(*smoke(tmp_path), log=log, fault="replace:4:KILL").code == -signal.SIGKILL
    file = seed_folder(tmp_path) / "run.json"
    begun = json.loads(file.read_text())
    for part in ("recipe", "data", "sources"):
        file.write_text(json.dumps(begun | {part: "another"}))
        before = content(tmp_path)
        assert_told(run(*smoke(tmp_path), log=log), 2, f"was begun with other {part}.", "--fresh")
        assert content(tmp_path) == before
    assert run(*smoke(tmp_path, "--fresh"), log=log).code == 0
