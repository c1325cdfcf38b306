"""Mistakes in what a run keeps, each of which must change the bits that a resumed run ends with."""

from collections.abc import Callable
from pathlib import Path

from common.training import checkpoint


def spoil_checkpoint(folder: Path, mistake: Callable[[dict], None]) -> None:
    """Make the mistake in the last checkpoint of a run's folder."""
    kept = checkpoint.load(folder)
    mistake(kept)
    checkpoint.save(folder, kept["samples"], kept)


def step_off_by_one(kept: dict) -> None:
    kept["step"] += 1


def other_velocity(kept: dict) -> None:
    kept["parts"]["optimiser"]["state"][0]["momentum_buffer"].mul_(1.001)
