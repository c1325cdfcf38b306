"""How the printed recipe was brought to train: every try, short, measured on every tenth picture of
Train400, which was held out. The test sets are not touched.

    python -m papers.dncnn.choose

Writes choices.csv beside this file, which README.md shows. Tries that are already in it are not run again.
"""

import csv
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from common.determinism import make_deterministic
from common.errors import NumbersError, UserError
from common.papers import load_paper
from common.passports import locate
from common.run import Job, Run
from papers.dncnn.train import VARIANTS, train

FILE = Path(__file__).with_name("choices.csv")
VARIANT = "sigma25-printed"
EPOCHS, EPOCH_PATCHES, BATCH = 2, 1024, 32

# What the paper prints, taken at its word; then what differs, and the seeds.
START = {"rate": 0.1, "last_rate": 1e-4, "weights": "he", "clip": 0.0}
TRIES: list[tuple[dict, tuple[int, ...]]] = [
    ({}, (0, 1)),
    ({"weights": "authors"}, (0, 1)),
    ({"rate": 0.1 / 1600, "last_rate": 1e-4 / 1600}, (0, 1)),  # the loss as a mean over a patch's pixels
    ({"clip": 0.005}, (0,)),
]
COLUMNS = [*START, "seed", "held_out_psnr"]
DIVERGED = "diverged"


def one_try(changes: dict, seed: int) -> dict:
    """Train for 64 steps. PSNR in dB after the last, or that the loss became infinite."""
    make_deterministic(seed)
    values = START | changes
    recipe = replace(
        VARIANTS[VARIANT], rates=((EPOCHS, values["rate"], values["last_rate"]),), weights=values["weights"],
        clip=values["clip"], epoch_patches=EPOCH_PATCHES, batch=BATCH, held_out=True,
    )  # fmt: skip
    paper = load_paper("dncnn")
    with tempfile.TemporaryDirectory() as folder:
        data = locate(paper.passport(VARIANT))
        job = Job(paper, VARIANT, "full", seed, recipe, True, data, "cpu", Path(folder), False, "choose")
        try:
            found = f"{train(Run(job), recipe).curves['psnr'][-1]:.2f}"
        except NumbersError:
            found = DIVERGED
    return values | {"seed": seed, "held_out_psnr": found}


def known_tries() -> list[dict]:
    if not FILE.exists():
        return []
    with open(FILE, newline="") as stream:
        return list(csv.DictReader(stream))


def main() -> None:
    done = known_tries()
    keys = {tuple(row[name] for name in COLUMNS[:-1]) for row in done}
    for changes, seeds in TRIES:
        for seed in seeds:
            if tuple(map(str, (*(START | changes).values(), seed))) not in keys:
                done.append(one_try(changes, seed))
                write(done)
                print(done[-1], flush=True)
    write_page(known_tries())


def page_block(rows: list[dict]) -> str:
    """The tries as README.md shows them: a line for each, all its seeds."""
    from tabulate import tabulate

    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in START), []).append(row)
    lines = []
    for values, group in groups.items():
        differs = [f"`{n}={v}`" for n, v, start in zip(START, values, START.values(), strict=True) if v != str(start)]
        found = ", ".join(row["held_out_psnr"] for row in group)
        lines.append([" ".join(differs) or "what is printed", ", ".join(row["seed"] for row in group), found])
    table = tabulate(lines, ["differs in", "seeds", "held-out PSNR (dB)"], tablefmt="pipe", disable_numparse=True)
    start = ", ".join(f"`{name}={value}`" for name, value in START.items())
    steps = EPOCHS * EPOCH_PATCHES // BATCH
    return f"Every try: {steps} steps of {BATCH} patches at noise level 25. What is printed is {start}.\n\n{table}"


def write_page(rows: list[dict]) -> None:
    page = FILE.with_name("README.md")
    head, rest = page.read_text(encoding="utf-8").split("<!-- choices -->")
    _, tail = rest.split("<!-- /choices -->")
    page.write_text(f"{head}<!-- choices -->\n\n{page_block(rows)}\n\n<!-- /choices -->{tail}", encoding="utf-8")


def write(rows: list[dict]) -> None:
    with open(FILE, "w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
