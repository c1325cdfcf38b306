"""What a paper's choose.py keeps of its tries: choices.csv beside it, and the block on the paper's page."""

import csv
import io
from pathlib import Path

from common.base.files import fill, write_whole

BEGIN, END = "<!-- choices -->", "<!-- /choices -->"


def known_tries(file: Path) -> list[dict[str, str]]:
    """The tries so far, all values as text."""
    if not file.exists():
        return []
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


def keep_tries(file: Path, tries: list[dict]) -> None:
    """Write choices.csv whole; the first try names the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(tries[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(tries)
    write_whole(file, text.getvalue().encode())


def by_guess(tries: list[dict], start: dict) -> dict[str, list[dict]]:
    """The tries in groups of one guess each, named by what differs from `start`; '' is the start itself."""
    groups: dict[str, list[dict]] = {}
    for each in tries:
        differs = [f"`{name}={each[name]}`" for name, value in start.items() if str(each[name]) != str(value)]
        groups.setdefault(" ".join(differs), []).append(each)
    return groups


def in_words(start: dict) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in start.items())


def show_on_page(page: Path, block: str) -> None:
    """Put the block between the markers of the paper's README.md."""
    write_whole(page, fill(page.read_text(encoding="utf-8"), BEGIN, END, block).encode())
