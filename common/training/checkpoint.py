"""Checkpoints that survive a pulled plug.

A file is written beside its final name, flushed to the disk and renamed, and carries the hash of its content and of the
run that it belongs to; the last two are kept. A damaged one, or another run's, is noticed and the one before is used.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import torch

from common.base.files import write_whole

KEPT = 2


def save(folder: Path, samples: int, state: dict) -> None:
    """Save tensors and plain values as the checkpoint after `samples`, and drop old ones; and later ones, which `load`
    has found unusable, for it would have begun from them."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    saved = folder / f"step-{samples:012d}.ckpt"
    write_whole(saved, _digest(folder, payload) + b"\n" + payload)
    files = _newest_first(folder)
    kept = files[files.index(saved) :][:KEPT]
    for other in set(files) - set(kept):
        other.unlink(missing_ok=True)


def load(folder: Path, warn: Callable[[str], None] = lambda text: None) -> dict | None:
    """The run's newest undamaged checkpoint, its tensors in main memory, or None. `warn` is called for every other."""
    for path in _newest_first(folder):
        digest, _, payload = path.read_bytes().partition(b"\n")
        if _digest(folder, payload) == digest:
            return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        warn(f"{path} is damaged or another run's, and was skipped.")
    return None


def exists(folder: Path) -> bool:
    return bool(_newest_first(folder))


def clear(folder: Path) -> None:
    """Remove all checkpoints, and what a killed run left half written."""
    for path in [*_newest_first(folder), *folder.glob(".step-*.writing")]:
        path.unlink()


def _digest(folder: Path, payload: bytes) -> bytes:
    """Of the content, and of the run that has it: PAPER/VARIANT/PRESET-EDITION/seed-K, wherever runs are kept."""
    return hashlib.sha256("/".join(folder.parts[-4:]).encode() + b"\n" + payload).hexdigest().encode()


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"), reverse=True)
