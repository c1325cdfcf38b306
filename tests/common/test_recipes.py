"""Any field of any recipe can be typed on the command line."""

import contextlib
import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

import pytest

from common.base.errors import UsageError
from common.claims.papers import find_papers, load_paper
from common.training.recipes import as_text, described_fields, option_name, override


def recipes(name: str) -> list:
    """Of every variant of a paper that is built."""
    paper, found = load_paper(name), []
    for variant in paper.variants:
        with contextlib.suppress(UsageError):
            found.append(paper.module("train").recipe(variant, "full"))
    return found


def types(value):
    return tuple(map(types, value)) if isinstance(value, tuple) else type(value)


@pytest.mark.parametrize("paper", find_papers())
def test_every_field_of_every_recipe_takes_its_own_value_as_text(paper):
    for recipe in recipes(paper):
        for field in dataclasses.fields(recipe):
            value = getattr(recipe, field.name)
            for words in ([option_name(field.name), as_text(value)], [f"{option_name(field.name)}={as_text(value)}"]):
                typed = override(recipe, words)
                assert typed == recipe
                assert types(getattr(typed, field.name)) == types(value), words


@pytest.mark.parametrize("paper", find_papers())
def test_every_field_of_every_recipe_has_a_line_in_the_help(paper):
    """The comment at the field: one that a formatter moves to another line is missed here."""
    for kind in {type(recipe) for recipe in recipes(paper)}:
        for option, line in described_fields(kind):
            words, _, default = line.rpartition("  [default: ")
            assert len(words) > 10 or re.search(r"\b(Sec\.|Table|Fig\.)", words), f"{option}: what is it, or where?"
            assert default.endswith("]"), option


def test_a_comment_on_a_field_s_first_line_is_its_help():
    assert described_fields(Recipe)[:2] == [
        ("--channels", "grey or colour  [default: 1]"),
        ("--limit", "[default: null]"),
    ]


@dataclass(frozen=True)
class Recipe:
    channels: Literal[1, 3] = 1  # grey or colour
    limit: int | None = None
    rate: float = 0.5
    fast: bool = True
    order: Literal["file", "1"] = "file"
    sigma: tuple[float, float] = (0.0, 55.0)


TYPED = [
    ("--channels", "3", "channels", 3), ("--limit", "7", "limit", 7), ("--limit", "null", "limit", None),
    ("--rate", "2", "rate", 2.0), ("--rate", "1e-3", "rate", 0.001), ("--rate", ".5", "rate", 0.5),
    ("--fast", "no", "fast", False), ("--fast", "false", "fast", False), ("--fast", "1", "fast", True),
    ("--order", "1", "order", "1"), ("--sigma", "[1, 2.5]", "sigma", (1.0, 2.5)),
]  # fmt: skip


@pytest.mark.parametrize(("option", "text", "name", "value"), TYPED)
def test_a_value_is_taken_as_it_is_meant(option, text, name, value):
    changed = override(Recipe(), [option, text])
    assert changed == dataclasses.replace(Recipe(), **{name: value})
    assert types(getattr(changed, name)) == types(value)


WRONG = [
    ("--channels", "2", "Input should be 1 or 3"), ("--order", "2", "Input should be 'file' or '1'"),
    ("--limit", "true", "Input should be a valid integer"), ("--limit", "2.5", "Input should be a valid integer"),
    ("--rate", "Infinity", "Input should be a finite number"), ("--sigma", "[1]", "Field required"),
    ("--sigma", "1", "Input should be a valid tuple"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "text", "said"), WRONG)
def test_a_value_of_the_wrong_kind_is_told(option, text, said):
    with pytest.raises(UsageError, match=f"^{option} .*: {said}"):
        override(Recipe(), [option, text])


def test_a_mistyped_name_suggests_the_nearest_option():
    with pytest.raises(UsageError, match="Did you mean --limit?"):
        override(Recipe(), ["--limt", "7"], ["--seeds"])
    with pytest.raises(UsageError, match="Did you mean --seeds?"):
        override(Recipe(), ["--seed", "7"], ["--seeds"])
