"""How the paper's open questions were settled: every try, measured on 10,000 patterns of the
training set that were held out. The test set is not touched.

    python -m papers.lenet5_1998.choose [NUMBER OF PROCESSES]

Writes choices.csv beside this file, which README.md shows. Tries that are already
in it are not run again.
"""

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from common.base.errors import UserError
from common.claims.papers import load_paper
from common.data.passports import locate
from common.pages.pages import markdown_table
from common.training import provenance
from common.training.determinism import make_deterministic
from common.training.run import Job, Run
from common.training.tries import by_guess, in_words, keep_tries, known_tries, show_on_page
from papers.lenet5_1998.train import VARIANTS, train

PAPER = "lenet5_1998"
FILE = Path(__file__).with_name("choices.csv")
HELD_OUT = 10_000

# The open fields of the recipe, and from where the search set out.
START = {
    "subsample": "mean",
    "bound": 2.4,
    "fan_in_exponent": 0.5,
    "order": "constant",
    "equation": "eq9",
    "j": 10.0,
    "top_curvature": "quadratic",
    "shared_coefficient": False,
    "distorted_copies": 0,
    "shift": 2.0,
    "scale": 0.15,
    "squeeze": 0.15,
    "shear": 0.3,
}
GENTLE = {"shift": 1.0, "scale": 0.08, "squeeze": 0.08, "shear": 0.15}
GENTLEST = {"shift": 0.5, "scale": 0.04, "squeeze": 0.04, "shear": 0.08}
STRONG = {"shift": 3.0, "scale": 0.25, "squeeze": 0.25, "shear": 0.5}

# (what differs from START, seeds): one question at a time.
TRIES: list[tuple[dict, tuple[int, ...]]] = [
    ({}, (0, 1, 2)),
    ({"fan_in_exponent": 1.0}, (0,)),
    ({"bound": 1.0}, (0,)),
    ({"bound": 1.73}, (0,)),
    ({"j": 5.0}, (0, 1)),
    ({"order": "fresh"}, (0, 1)),
    ({"distorted_copies": 9}, (0,)),
    ({"distorted_copies": 9} | GENTLE, (0,)),
    ({"distorted_copies": 9} | GENTLEST, (0,)),
    ({"distorted_copies": 9} | STRONG, (0,)),
    ({"equation": "eq8"}, (0,)),
    ({"top_curvature": "exact"}, (0,)),
    ({"subsample": "sum"}, (0,)),
    ({"subsample": "sum", "bound": 1.0}, (0, 1)),
    ({"j": 20.0}, (0,)),
    ({"j": 1.0}, (0,)),
    ({"shared_coefficient": True}, (0,)),
]


def one_try(changes: dict, seed: int) -> dict:
    """Train `lenet5` on 50,000 patterns; errors in percent after the last pass."""
    torch.set_num_threads(1)
    make_deterministic(seed)
    recipe = replace(VARIANTS["lenet5"], held_out=HELD_OUT, **(START | changes))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            Job(
                paper=PAPER,
                variant="lenet5",
                preset="full",
                seed=seed,
                recipe=recipe,
                modified=True,
                data=locate(load_paper(PAPER).passport("lenet5")),
                device="cpu",
                runs_dir=Path(folder),
                command="choose",
                code=provenance.code(PAPER),
            )
        )
        train(run, recipe)
    return (
        START
        | changes
        | {
            "seed": seed,
            "held_out_error": round(run.curves["held_out_error"][-1], 2),
            "train_error": round(run.curves["train_error"][-1], 2),
        }
    )


def main(processes: int) -> None:
    done = known_tries(FILE)
    keys = {tuple(row[name] for name in (*START, "seed")) for row in done}
    wanted = [(changes, seed) for changes, seeds in TRIES for seed in seeds]
    wanted = [(c, s) for c, s in wanted if tuple(map(str, (*(START | c).values(), s))) not in keys]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(one_try, *each) for each in wanted]):
            done.append(future.result())
            keep_tries(FILE, sorted(done, key=lambda row: [str(row[name]) for name in (*START, "seed")]))
            print(done[-1], flush=True)
    show_on_page(FILE.with_name("README.md"), page_block(known_tries(FILE)))


def page_block(rows: list[dict]) -> str:
    """The tries as README.md shows them: a line for each set of guesses, all its seeds."""
    lines = []
    for name, group in by_guess(rows, START).items():
        errors = [", ".join(f"{float(row[kind]):.2f}" for row in group) for kind in ("held_out_error", "train_error")]
        lines.append([name or "the start", ", ".join(row["seed"] for row in group), *errors])
    lines.sort(key=lambda line: (line[0] != "the start", line[0]))
    table = markdown_table(lines, ["differs from the start in", "seeds", "held-out error (%)", "training error (%)"])
    about = f"The search started from {in_words(START)}."
    return f"Every try, on 50,000 patterns, after the last pass. {about}\n\n{table}"


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]) if sys.argv[1:] else 1)
    except UserError as error:
        sys.exit(str(error))
