"""Whether an environment can be what a record says: by its other fields, and by what the paper runs on."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from common.base import paths
from common.claims.papers import Paper
from common.training.provenance import X86, Environment

TORCH = re.compile(r"(\d+)\.(\d+)\.(\d+)(\+\w+)?")


def environment_faults(paper: Paper, used: Environment, recipe: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be so of an environment.

    Args:
        recipe: the fields that the record gives; none where nothing was trained.
    """
    from common.training.determinism import FLAGS

    train = paper.module("train")
    device = "cpu" if on_cpu(used) else "cuda"
    if device not in train.DEVICES:
        yield f"its device is {used.device}, but {paper.name} runs on {' or '.join(train.DEVICES)} only"
    if not _known(used.torch):
        yield f"torch {used.torch} is not a version that requirements.txt knows of"
    if device == "cuda" and used.torch.endswith("+cpu"):
        yield f"torch {used.torch} does not run on {used.device}"
    if not _has_instructions(used):
        yield f"a processor of {used.system} has no {used.instruction_set}"
    if used.precision not in (possible := _precisions(used, recipe.get("precision"))):
        yield f"its precision is {used.precision}, but on that device its recipe gives {' or '.join(possible)}"
    if used.compiled and recipe.get("compiled") is False and device == "cpu":  # a GPU replays a graph all the same
        yield f"was compiled ({used.compiled}), which its recipe rules out"
    if used.deterministic != FLAGS:
        yield "its flags are not those of a deterministic run"
    if used.processes > 1 and not getattr(train, "SEVERAL_DEVICES", False):
        yield f"was trained by {used.processes} processes, but {paper.name} trains in one"


def on_cpu(used: Environment) -> bool:
    return used.device == used.processor


def pinned(package: str) -> str | None:
    """The version of a package that requirements.txt names; None where it names none."""
    file = paths.ROOT / "requirements.txt"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    found = re.search(rf"^{package}==(\S+)", text, re.MULTILINE)
    return found[1] if found else None


def _known(torch: str) -> bool:
    """A release of PyTorch 2, no later than the one that requirements.txt names."""
    version, newest = TORCH.fullmatch(torch), TORCH.fullmatch(pinned("torch") or "")
    if not version or version[1] != "2":
        return False
    return newest is None or _numbers(version) <= _numbers(newest)


def _numbers(version: re.Match[str]) -> list[int]:
    return [int(part) for part in version.groups()[:3]]


def _has_instructions(used: Environment) -> bool:
    name, _, units = (used.instruction_set or "").partition(" with ")
    if name.startswith("AVX") and not used.system.endswith(X86):
        return False
    return not units or name == "AVX512"


def _precisions(used: Environment, wanted: str | None) -> list[str]:
    """What `choose_precision` can have chosen.

    Args:
        wanted: "fast", "float32", or None where the recipe does not say.
    """
    from common.training.device import bfloat16_is_faster

    if wanted == "float32":
        return ["float32"]
    if not on_cpu(used) or used.instruction_set is None:
        return ["float32", "bfloat16"]  # it depends on the GPU; and the first records do not name the instructions
    fastest = "bfloat16" if bfloat16_is_faster(used.instruction_set, used.processor) else "float32"
    return [fastest] if wanted == "fast" else sorted({"float32", fastest})
