"""Tables on the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 160


def print_table(title: str, columns: list[str], lines: list[list[str]]) -> None:
    """Print a table to stdout, as wide as the terminal or, into a pipe, as wide as it needs."""
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for line in lines:
        table.add_row(*line)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    console.print(table)
