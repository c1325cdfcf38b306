"""Tables on the terminal lose no text."""

import io

import pytest
from rich import console

from common.base import terminal

ADDRESS = "https://example.org/" + "where-the-data-is/" * 30


@pytest.mark.parametrize("tty", [False, True])
def test_an_address_is_never_cut(monkeypatch, tty):
    out = io.StringIO()
    plain = console.Console
    monkeypatch.setattr(terminal, "_Results", lambda **how: plain(file=out, width=80, force_terminal=tty, **how))
    terminal.print_table("Data", ["dataset", "page"], [["one", ADDRESS], ["another", "none"]])
    if tty:  # it goes on in the next lines of its column
        assert ADDRESS in "".join(out.getvalue().split())
    else:
        assert any(ADDRESS in line for line in out.getvalue().splitlines())
