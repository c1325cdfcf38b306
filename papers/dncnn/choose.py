"""How the printed recipe was brought to train: every try, short, measured on every tenth picture of
Train400, which was held out. The test sets are not touched.

    python -m papers.dncnn.choose

Writes choices.csv beside this file, which README.md shows. Tries that are already in it are not run again.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from common.choices import by_guess, in_words, keep_tries, known_tries, show_on_page
from common.determinism import make_deterministic
from common.errors import NumbersError, UserError
from common.pages import markdown_table
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


def main() -> None:
    done = known_tries(FILE)
    keys = {tuple(row[name] for name in (*START, "seed")) for row in done}
    for changes, seeds in TRIES:
        for seed in seeds:
            if tuple(map(str, (*(START | changes).values(), seed))) not in keys:
                done.append(one_try(changes, seed))
                keep_tries(FILE, done)
                print(done[-1], flush=True)
    show_on_page(FILE.with_name("README.md"), page_block(known_tries(FILE)))


def page_block(rows: list[dict]) -> str:
    """The tries as README.md shows them: a line for each guess, all its seeds."""
    lines = [
        [
            name or "what is printed",
            ", ".join(row["seed"] for row in group),
            ", ".join(r["held_out_psnr"] for r in group),
        ]
        for name, group in by_guess(rows, START).items()
    ]
    table = markdown_table(lines, ["differs in", "seeds", "held-out PSNR (dB)"])
    steps = EPOCHS * EPOCH_PATCHES // BATCH
    about = f"{steps} steps of {BATCH} patches at noise level 25. What is printed is {in_words(START)}."
    return f"Every try: {about}\n\n{table}"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
