"""A recipe's fields: as options of the command line, with their bounds, and what each one is.

A paper's `Recipe` is a frozen pydantic dataclass. A field's bounds are given at the field, and so is the comment that
says what it is and where the paper has it; that comment is also the field's line in `--help`.
"""

import ast
import dataclasses
import inspect
import io
import json
import textwrap
import tokenize
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic

from common.base.errors import UsageError, nearest

CHECKED = pydantic.ConfigDict(allow_inf_nan=False)  # the config of every Recipe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")


def plain(recipe: "DataclassInstance") -> dict[str, Any]:
    """The recipe as a record and a weights file have it: names, numbers, words and lists."""
    content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return content


def option_name(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def as_text(value: object) -> str:
    """A field's value as it is typed: words as they are, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def override(recipe: R, words: list[str], others: Iterable[str] = ()) -> R:
    """The recipe with `--field value` pairs applied.

    Args:
        others: the options besides the fields, to suggest where a name is mistyped.

    Raises:
        UsageError: no such field, no value, or a value that the field cannot have.
    """
    fields = {option_name(field.name): field for field in dataclasses.fields(recipe)}
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    changes = {}
    for name, text in zip(words[::2], [*words[1::2], None], strict=False):
        if not name.startswith("--"):
            raise UsageError(f"{name!r} is not an option.")
        if name not in fields:
            raise UsageError(f"There is no option {name}.{nearest(name, [*fields, *others])}")
        if text is None:
            raise UsageError(f"{name} needs a value.")
        try:
            changes[fields[name].name] = _value(fields[name].type, text)
        except pydantic.ValidationError as error:
            raise UsageError(f"{name} {text}: {error.errors()[0]['msg']}.") from None
    return dataclasses.replace(recipe, **changes)


def _value(kind: object, text: str) -> object:
    """What is typed is read as JSON where that is valid (3, [[20, 0.1]], null), else as a word (constant, yes)."""
    adapter: pydantic.TypeAdapter[object] = pydantic.TypeAdapter(kind, config=CHECKED)
    try:
        return adapter.validate_json(text, strict=True)
    except pydantic.ValidationError:
        if text.startswith("["):
            raise
    return adapter.validate_python(text)


def described_fields(recipe: type) -> list[tuple[str, str]]:
    """Every field as an option of the command line, with its comment and its default value."""
    comments = _comments(recipe)
    lines = []
    for field in dataclasses.fields(recipe):
        default = f"[default: {as_text(field.default)}]"
        lines.append((option_name(field.name), "  ".join(filter(None, [comments.get(field.name), default]))))
    return lines


def _comments(recipe: type) -> dict[str, str]:
    """The comment on the line where a field begins."""
    source = textwrap.dedent(inspect.getsource(recipe))
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    by_line = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    return {
        statement.target.id: by_line[statement.lineno]
        for statement in definition.body
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and statement.lineno in by_line
    }
