"""A recipe's fields: as options of the command line, and between which bounds."""

import dataclasses
import json
from collections.abc import Iterable

import pydantic

from common.base.errors import UsageError, nearest


def option_name(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def check_bounds(recipe, least: dict[str, float], most: dict[str, float]) -> None:
    """
    Args:
        least, most: what the fields named may be; None is no value and passes.

    Raises:
        UsageError: a field is below its least or above its most.
    """
    for name, bound in least.items():
        if (value := getattr(recipe, name)) is not None and value < bound:
            raise UsageError(f"{option_name(name)} {value}: at least {bound}.")
    for name, bound in most.items():
        if getattr(recipe, name) > bound:
            raise UsageError(f"{option_name(name)} {getattr(recipe, name)}: at most {bound:,}.")


def as_text(value) -> str:
    """A field's value as it is typed: words as they are, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def override(recipe, words: list[str], others: Iterable[str] = ()):
    """The recipe with `--field value` pairs put in.

    Args:
        others: the options besides the fields, to suggest where a name is mistyped.

    Raises:
        UsageError: no such field, no value, or a value of the wrong kind.
    """
    fields = {option_name(field.name): field for field in dataclasses.fields(recipe)}
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    changes = {}
    for name, text in zip(words[::2], [*words[1::2], None], strict=False):
        if not name.startswith("--"):
            raise UsageError(f"{name!r} is no option.")
        if name not in fields:
            raise UsageError(f"There is no option {name}.{nearest(name, [*fields, *others])}")
        if text is None:
            raise UsageError(f"{name} needs a value.")
        try:
            changes[fields[name].name] = _value(fields[name].type, text)
        except pydantic.ValidationError as error:
            raise UsageError(f"{name} {text}: {error.errors()[0]['msg']}.") from None
    return dataclasses.replace(recipe, **changes)


def _value(kind, text: str):
    """What is typed is JSON where it fits as such (3, [[20, 0.1]], null), else a word (constant, yes)."""
    adapter = pydantic.TypeAdapter(kind, config=pydantic.ConfigDict(allow_inf_nan=False))
    try:
        return adapter.validate_json(text, strict=True)
    except pydantic.ValidationError:
        if text.startswith("["):
            raise
    return adapter.validate_python(text)
