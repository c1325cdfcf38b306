"""Weights as safetensors, or a state dict that PyTorch saved: no code in a file is run, and what is loaded fits."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from common.base.errors import DAMAGED, NumbersError, UsageError
from common.base.files import write_whole

if TYPE_CHECKING:  # imported when a file is read
    import safetensors

PYTORCH = (".pth", ".pt")  # the endings of files that torch.save wrote
LISTED = 8  # names in a message
RUN_WEIGHTS = "weights.safetensors"  # as a run calls them, beside its record.json
# The only key of a file's metadata: several would change order each time, and so the bytes. It holds words, the first
# of which is the run, PAPER/VARIANT/seed-K, and after them the recipe as JSON, which the first files do not have.
RUN = "run"
ROUNDED = ["float16", "of"]  # in a file of rounded weights the words after the run, before the hash of what they were


def weights_hash(weights: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bits, whatever file they are in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())  # NumPy knows no bfloat16
    return digest.hexdigest()


def copied(model: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, in main memory."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with what is float32 rounded to float16; whole numbers stay as they are.

    Raises:
        NumbersError: float16 has no number as large as one of them.
    """
    half = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in weights.items()}
    for name, tensor in half.items():
        if not tensor.isfinite().all():
            largest, limit = weights[name].abs().max().item(), torch.finfo(torch.float16).max
            raise NumbersError(f"{name} holds {largest:g}, but float16 ends at {limit:g}")
    return half


def widened(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with what is float16 as float32, as a network takes them: the same numbers."""
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in weights.items()}


def save_weights(
    weights: dict[str, Tensor],
    path: Path,
    run: str | None = None,
    recipe: dict[str, Any] | None = None,
    rounded_from: str | None = None,
) -> Path:
    """
    Args:
        run: PAPER/VARIANT/seed-K that gave the weights, for `named_run`.
        recipe: what they were trained with, for `named_recipe`: names and shapes of weights do not tell a network that
            averages from one that adds.
        rounded_from: the hash of the weights that these were before they were `rounded`, for `named_before_rounding`.
    """
    import safetensors.torch

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    words = [run] if run else []
    words += [*ROUNDED, rounded_from] if run and rounded_from else []
    words += [json.dumps(recipe, sort_keys=True)] if run and recipe else []
    write_whole(path, safetensors.torch.save(plain, {RUN: " ".join(words)} if words else None))
    return path


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file; those that were rounded to float16 as float32.

    Raises:
        UsageError: no such file, or neither a whole safetensors file nor, if it is called .pth or .pt, a state dict.
        NumbersError: NaN or infinity in it, which would give meaningless measurements.
    """
    if path.suffix in PYTORCH:
        weights = _state_dict(path)
    else:
        with _opened(path) as file:
            weights = file.get_tensors()
    require_finite(weights, path)
    return widened(weights) if named_before_rounding(path) else weights


def _state_dict(path: Path) -> dict[str, Tensor]:
    _require_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED:
        advice = "Save it with torch.save(model.state_dict(), FILE), or as safetensors."
        raise UsageError(f"{path} is not a state dict that is read without running code in it. {advice}") from None
    if isinstance(content, dict):
        content = content.get("state_dict", content)  # as training scripts often nest it
    if not (isinstance(content, dict) and all(isinstance(tensor, Tensor) for tensor in content.values())):
        raise UsageError(f"{path} holds no state dict: a dict from names to tensors, alone or as `state_dict`.")
    return dict(content)


@contextlib.contextmanager
def laid_out_as(path: Path, whose: str) -> Iterator[None]:
    """Around the code that turns a file of somebody else's into weights of ours.

    Raises:
        UsageError: the file is not laid out as that code expects.
    """
    try:
        yield
    except DAMAGED as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"{path} is not laid out as {whose} weights are ({reason}).") from None


def with_batch_counts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with zeros where batch normalization counts its batches, which older files of PyTorch lack."""
    counted = {name.replace("running_mean", "num_batches_tracked") for name in state if name.endswith("running_mean")}
    return {name: torch.zeros((), dtype=torch.long) for name in counted} | state


def require_finite(weights: dict[str, Tensor], path: Path) -> None:
    """
    Raises:
        NumbersError: NaN or infinity in the weights that a file holds.
    """
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise NumbersError(f"{path}: NaN or infinity in {name}.")


def trained_as(path: Path) -> tuple[str, str] | None:
    """The paper and variant that a file says its weights belong to; None if it does not say.

    Raises:
        UsageError: no such file, or not a whole safetensors file.
    """
    said = (named_run(path) or "").split("/")
    return (said[0], said[1]) if len(said) == 3 else None


def named_run(path: Path) -> str | None:
    """PAPER/VARIANT/seed-K that a file says gave its weights; None if it does not say.

    Raises:
        UsageError: no such file, or not a whole safetensors file.
    """
    return next(iter(_said(path)[0]), None)


def named_before_rounding(path: Path) -> str | None:
    """The hash that a file of rounded weights says they had before; None if it does not say that they are rounded.

    Raises:
        UsageError: no such file, or not a whole safetensors file.
    """
    words = _said(path)[0][1:]
    return words[-1] if words[:-1] == ROUNDED else None


def named_recipe(path: Path) -> dict[str, Any] | None:
    """The recipe that a file says its weights were trained with; None if it does not say.

    Raises:
        UsageError: no such file, or not a whole safetensors file.
    """
    try:
        recipe = json.loads(_said(path)[1])
    except ValueError:
        return None
    return recipe if isinstance(recipe, dict) else None


def _said(path: Path) -> tuple[list[str], str]:
    """The words of a file's metadata, and the JSON after them."""
    if path.suffix in PYTORCH:
        return [], ""
    with _opened(path) as file:
        words, brace, recipe = (file.metadata() or {}).get(RUN, "").partition("{")
    return words.split(), brace + recipe


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["safetensors.safe_open"]:
    import safetensors

    _require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        advice = f"A state dict that torch.save wrote is called {' or '.join(PYTORCH)}."
        raise UsageError(f"{path} is not a whole safetensors file ({error}). {advice}") from None


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"{path}: no such weights file.")


def fit_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load weights that fit the model exactly.

    Raises:
        UsageError: a name or a shape differs.
    """
    wanted, given = ({name: tuple(w.shape) for name, w in of.items()} for of in (model.state_dict(), weights))
    lacks = {name: shape for name, shape in wanted.items() if given.get(name) != shape}
    if lacks or wanted.keys() != given.keys():
        other = {name: shape for name, shape in given.items() if wanted.get(name) != shape}
        raise UsageError(f"These are weights of another model: it wants {_listed(lacks)}; they have {_listed(other)}.")
    model.load_state_dict(weights, strict=True)


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    """'C1.weight (6, 1, 5, 5), C1.bias (6,) and 10 more'"""
    first = [f"{name} {shape}" for name, shape in list(shapes.items())[:LISTED]]
    more = f" and {len(shapes) - LISTED} more" if len(shapes) > LISTED else ""
    return (", ".join(first) or "nothing more") + more
