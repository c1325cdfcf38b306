"""The options that several commands share, and the values that they take."""

import re
from pathlib import Path
from typing import Any

import click

from common.base import paths
from common.base.errors import nearest

LARGEST_SEED = 2**31
WHOLE_NUMBER = r"\s*\d{1,10}\s*"


class NearChoice(click.Choice[str]):
    """A choice that suggests the nearest word."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in self.choices:
            return value
        known = ", ".join(self.choices)
        return self.fail(f"{value!r} is not one of {known}.{nearest(str(value), self.choices)}", param, ctx)


class Seeds(click.ParamType):
    """'0,1,2' as a tuple of different whole numbers, none negative."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        words = value.split(",")
        if not all(re.fullmatch(WHOLE_NUMBER, word) and int(word) < LARGEST_SEED for word in words):
            return self.fail(f"{value!r}: seeds are whole numbers separated by commas, as in 0,1,2.", param, ctx)
        return tuple(dict.fromkeys(int(word) for word in words))


FOLDER = click.Path(file_okay=False, path_type=Path)
JSON_OPTION = click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON.")
DATA_DIR_OPTION = click.Option(["--data-dir"], type=FOLDER, help="Look for data here first (only read).")
DEVICE_OPTION = click.Option(["--device"], type=NearChoice(["auto", "cpu", "cuda"]), default="auto")
PRESET_HELP = (
    "full: the whole recipe. quick: minutes, to see it learn. smoke: seconds, on the stand-in.  [default: full]"
)
DATA_HELP = "auto: the stand-in where the real data is unavailable.  [default: auto]"
RUN_OPTIONS: list[click.Parameter] = [
    click.Option(["--variant"], help="Which variant; the list names them.  [default: the paper's]"),
    click.Option(["--preset"], type=NearChoice(paths.PRESETS), default="full", help=PRESET_HELP),
    click.Option(["--seeds"], type=Seeds(), default="0", help="As in 0,1,2.", show_default=True),
    DEVICE_OPTION,
    click.Option(["--data"], type=NearChoice(["auto", "real", "standin"]), default="auto", help=DATA_HELP),
    DATA_DIR_OPTION,
    click.Option(["--runs-dir"], type=FOLDER, default=paths.RUNS, help="Where runs are kept.  [default: runs/]"),
    click.Option(["--fresh"], is_flag=True, help="Start over instead of resuming or reusing."),
    click.Option(
        ["--other-machine"], is_flag=True, help="Go on with what was begun elsewhere, or compiled otherwise."
    ),
    click.Option(["--nproc"], type=click.IntRange(1, 1024), help="Train on this many devices of this machine at once."),
    click.Option(["--check"], is_flag=True, help="Exit with 1 unless every claim is reproduced or exceeded."),
    JSON_OPTION,
]  # fmt: skip
