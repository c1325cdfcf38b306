"""Checkpoints: two are kept, damage is noticed, and no accident costs the one before."""

import errno
import os
import pickle
import shutil

import pytest
import torch

from common.base.errors import MachineError
from common.training import checkpoint


def state(step: int) -> dict:
    return {"weights": torch.full((3, 2), step / 7), "step": step, "curves": {"loss": [0.1, 0.2]}, "rates": None}


def same(one: dict, other: dict) -> bool:
    return torch.equal(one.pop("weights"), other.pop("weights")) and one == other


@pytest.fixture
def two(tmp_path):
    """A folder with the checkpoints of steps 9 and 10."""
    for step in (9, 10):
        checkpoint.save(tmp_path, step, state(step))
    return tmp_path


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(folder, step: int, change) -> None:
    path = folder / f"step-{step:012d}.ckpt"
    path.write_bytes(change(path.read_bytes()))


def test_what_is_saved_is_loaded(two):
    assert same(checkpoint.load(two), state(10))


def test_an_empty_folder_has_none(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "nowhere") is None


def test_the_last_two_are_kept(two):
    checkpoint.save(two, 11, state(11))
    assert files(two) == ["step-000000000010.ckpt", "step-000000000011.ckpt"]


def test_clear_leaves_only_what_is_no_checkpoint(two):
    (two / "record.json").touch()
    (two / ".step-000000000011.ckpt.writing").touch()  # of a killed run
    checkpoint.clear(two)
    assert files(two) == ["record.json"]


DAMAGE = {
    "a flipped bit": lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:],
    "cut short": lambda content: content[:-100],
    "longer": lambda content: content + b"x",
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "another hash": lambda content: b"0" * 64 + content[64:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_newest_is_passed_over_with_a_warning(two, kind):
    damage(two, 10, DAMAGE[kind])
    warnings = []
    assert same(checkpoint.load(two, warnings.append), state(9))
    assert len(warnings) == 1 and "step-000000000010.ckpt is damaged" in warnings[0]


def test_another_runs_is_passed_over_wherever_runs_are_kept(tmp_path):
    mine, moved, other = (tmp_path / runs / "paper/variant/full" / seed for runs, seed in (
        ("runs", "seed-0"), ("moved", "seed-0"), ("runs", "seed-1"),
    ))  # fmt: skip
    checkpoint.save(mine, 9, state(9))
    for folder in (moved, other):
        folder.mkdir(parents=True)
        shutil.copy(mine / "step-000000000009.ckpt", folder)
    warnings = []
    assert same(checkpoint.load(moved, warnings.append), state(9)) and warnings == []
    assert checkpoint.load(other, warnings.append) is None and len(warnings) == 1


def test_two_damaged_ones_are_none(two):
    for step in (9, 10):
        damage(two, step, DAMAGE["cut short"])
    warnings = []
    assert checkpoint.load(two, warnings.append) is None
    assert len(warnings) == 2
    for step in (1, 2, 3):  # begun anew: what is saved now is kept, though the damaged ones have higher numbers
        checkpoint.save(two, step, state(step))
        assert same(checkpoint.load(two), state(step))
    assert len(list(two.glob("step-*"))) == 2


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_before_the_new_one_has_its_name_leaves_the_old_ones(two, monkeypatch, moment):
    class Killed(BaseException):
        pass

    def die(*words):
        raise Killed

    monkeypatch.setattr(os, moment, die)
    with pytest.raises(Killed):
        checkpoint.save(two, 11, state(11))
    monkeypatch.undo()
    warnings = []
    assert same(checkpoint.load(two, warnings.append), state(10))
    assert warnings == []
    checkpoint.save(two, 11, state(11))  # what the kill left behind is not in the way
    assert files(two) == ["step-000000000010.ckpt", "step-000000000011.ckpt"]


def test_a_full_disk_is_told_and_the_old_ones_stay(two, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = files(two)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="step-000000000011.ckpt: No space left on device"):
        checkpoint.save(two, 11, state(11))
    assert files(two) == before
    assert same(checkpoint.load(two), state(10))


class Dangerous:
    """Would run code when unpickled."""

    def __reduce__(self):
        return pytest.fail, ("unpickling ran code",)


def test_objects_other_than_tensors_and_plain_values_are_not_loaded(tmp_path):
    checkpoint.save(tmp_path, 1, {"object": Dangerous()})
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(tmp_path)
