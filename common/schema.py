"""Reading YAML and JSON into checked, frozen objects.

Every file that people or runs write is read through `read`, which names the
file, the entry and the field when something is missing, unknown or of the wrong
kind.
"""

import json
from pathlib import Path
from typing import TypeVar

import pydantic
import yaml

from common.errors import UsageError


class Checked(pydantic.BaseModel):
    """An object read from a file: no unknown fields, no change after reading."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


C = TypeVar("C", bound=Checked)


def read(path: Path, kind: type[C]) -> C:
    """Read and check a YAML or JSON file.

    Raises:
        UsageError: the file is no YAML or JSON, or not of this kind.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    return check(content, kind, str(path))


def check(content: object, kind: type[C], source: str) -> C:
    """Check content that is already in memory; `source` names it in the error."""
    try:
        return kind.model_validate(content)
    except pydantic.ValidationError as error:
        faults = [f"{_place(content, fault['loc'])}: {_words(fault)}" for fault in error.errors()]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UsageError(f"{source}: {faults[0]}{more}") from None


def _place(content: object, location: tuple) -> str:
    """'claims.some-id.tolerance': list entries are called by their id."""
    words = []
    for step in location:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            content = None
        named = isinstance(step, int) and isinstance(content, dict) and "id" in content
        words.append(str(content["id"]) if named else str(step))
    return ".".join(words) or "the file"


def _words(fault: dict) -> str:
    return {"missing": "is missing", "extra_forbidden": "is unknown here"}.get(fault["type"], fault["msg"])
