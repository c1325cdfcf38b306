"""Which variants the tests of a paper run, where each takes seconds."""

from collections.abc import Iterable

import pytest


def the_others_slow(variants: Iterable[str], *usual: str) -> list:
    """All variants; those that are not `usual` only where slow tests run."""
    names = list(variants)
    assert set(usual) <= set(names)
    return [pytest.param(name, marks=() if name in usual else pytest.mark.slow) for name in names]
