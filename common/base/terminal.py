"""Tables on the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table

WIDEST = 10_000  # characters, into a pipe


class _Results(Console):
    """Where results are printed. That their reader has left is raised; rich would end the program with a 1."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 (the error that rich is handling)


def print_table(title: str, columns: list[str], lines: list[list[str]]) -> None:
    """Print a table to stdout, as wide as the terminal or, into a pipe, as wide as it needs."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")  # an address too long for a narrow terminal is not cut
    for line in lines:
        table.add_row(*line)
    console = _Results(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDEST
    console.print(table)
