"""Reading YAML and JSON into checked, frozen objects.

Every file that people or runs write is read through `read`, which names the
file, the entry and the field when something is missing, unknown or of the wrong
kind.
"""

import json
import math
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
import yaml
from pydantic_core import ErrorDetails

from common.base.errors import DAMAGED, UsageError


class Checked(pydantic.BaseModel):
    """An object read from a file: no unknown fields, no change after reading."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Count = Annotated[int, pydantic.Field(gt=0)]  # of examples: what is measured is divided by it
C = TypeVar("C", bound=pydantic.BaseModel)
# Levels of lists and mappings within each other: with a hundred thousand, the reader of YAML crashes. That of sound
# JSON stops at two hundred.
DEEPEST = 100
# What no number of a usual JSON file has, once its digits are zeros and its pluses gone: what may make it infinite. A
# hash may have the former too, but ends with a quotation mark.
LIKE_ZEROS = bytes.maketrans(b"E123456789", b"e" + 9 * b"0")
LARGE_EXPONENT = re.compile(rb"e000+[\s,\]}]")
MANY_DIGITS = 200 * b"0"  # it takes 309 without an exponent, 210 with one of two digits
TOO_DEEP = f"lists and mappings are nested more than {DEEPEST} levels deep"
YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, several times as fast, where PyYAML has it


def read(path: Path, kind: type[C]) -> C:
    """Read and check a YAML or JSON file.

    Raises:
        UsageError: the file cannot be read, is not YAML or JSON, is not of this kind, holds NaN or infinity, is
            nested too deeply, or is YAML with a key that appears twice.
    """
    try:
        if path.suffix == ".json":
            text = path.read_bytes()
            return _from_sound_json(text, kind) or check(_from_json(text), kind, str(path), finite=True)
        content = _from_yaml(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, *DAMAGED) as error:
        raise UsageError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    return check(content, kind, str(path))


def _from_sound_json(text: bytes, kind: type[C]) -> C | None:
    """What nearly every file is, in a fraction of the time that saying what is wrong with it takes; None where
    something may be."""
    numbers = text.translate(LIKE_ZEROS, b"+")
    if b"NaN" in text or b"Infinity" in text or LARGE_EXPONENT.search(numbers) or MANY_DIGITS in numbers:
        return None  # a number may not be finite
    try:
        return kind.model_validate_json(text)
    except pydantic.ValidationError:
        return None


def _from_json(text: bytes) -> object:
    content = json.loads(text.decode("utf-8"))
    level = [content]
    for _ in range(DEEPEST):
        collections = [whole for whole in level if isinstance(whole, dict | list)]
        level = [part for whole in collections for part in (whole.values() if isinstance(whole, dict) else whole)]
    if level:
        raise ValueError(TOO_DEEP)
    return content


def _from_yaml(text: str, path: Path) -> object:
    """The content of a YAML text. YAML forbids a key that appears twice; PyYAML takes the last one."""
    depth = 0
    for event in yaml.parse(text, YamlLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(TOO_DEEP)
    loader = YamlLoader(text)
    try:
        root = loader.get_single_node()
        for key in _duplicates(root):
            raise UsageError(f"{path}: {key.value}: appears twice, again in line {key.start_mark.line + 1}")
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _duplicates(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Every key that has already appeared in its mapping, from the outer mappings to the inner ones."""
    waiting, met = deque([root]), set()
    while waiting:
        node = waiting.popleft()
        if id(node) in met or not isinstance(node, yaml.CollectionNode):  # an alias, or a plain value
            continue
        met.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
            continue
        keys = set()
        for key, value in node.value:
            name = key.tag, str(key.value)
            if name in keys:
                yield key
            keys.add(name)
            waiting.append(value)


def not_finite(content: object, place: str = "") -> Iterator[tuple[str, float]]:
    """Every NaN and infinity in plain content, however deep, with its place."""
    if isinstance(content, float) and not math.isfinite(content):
        yield place, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from not_finite(value, f"{place}.{key}" if place else str(key))
    elif isinstance(content, list | tuple):
        for position, value in enumerate(content):
            yield from not_finite(value, f"{place}.{position}")


def check(content: object, kind: type[C], source: str, finite: bool = False) -> C:
    """Check content that is already in memory; `source` names it in the error. With `finite` also where a field has
    no fixed form, all numbers must be."""
    for place, value in not_finite(content) if finite else ():
        raise UsageError(f"{source}: {place}: {value} is not a finite number")
    try:
        return kind.model_validate(content)
    except pydantic.ValidationError as error:
        faults = [f"{_place(content, fault['loc'])}: {_words(fault)}" for fault in error.errors()]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UsageError(f"{source}: {faults[0]}{more}") from None


def _place(content: Any, location: tuple[str | int, ...]) -> str:
    """'claims.some-id.tolerance': list entries are named by their id."""
    words = []
    for step in location:
        if isinstance(content, dict) and step not in content and step != location[-1]:
            continue  # not a place in the content, but the kind that it was read as
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            content = None
        named = isinstance(step, int) and isinstance(content, dict) and "id" in content
        words.append(str(content["id"]) if named else str(step))
    return ".".join(words) or "the file"


def _words(fault: ErrorDetails) -> str:
    return {"missing": "is missing", "extra_forbidden": "is unknown here"}.get(fault["type"], fault["msg"])
