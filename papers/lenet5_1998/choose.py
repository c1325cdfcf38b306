"""How the paper's open questions were settled: every try, measured on 10,000 patterns of the
training set that were held out. The test set is not touched.

    python -m papers.lenet5_1998.choose [NUMBER OF PROCESSES]

Writes choices.csv beside this file; README.md shows it. Tries already in the
file are not run again.
"""

import csv
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from common import layout
from common.determinism import make_deterministic
from common.papers import load_paper
from common.passports import locate
from common.run import Job, Run
from papers.lenet5_1998.train import VARIANTS, train

FILE = Path(__file__).with_name("choices.csv")
FIELDS = ("variant", "changes", "seed", "held_out_error", "train_error")
HELD_OUT = 10_000

# What differs from the variant's recipe as it is frozen now; {} is the recipe itself.
TRIES: list[tuple[str, dict, tuple[int, ...]]] = []


def one_try(variant: str, changes: dict, seed: int) -> dict:
    """Train on 50,000 and measure on the 10,000 held out, at the end of the last pass."""
    paper = load_paper("lenet5_1998")
    recipe = replace(VARIANTS[variant], held_out=HELD_OUT, **changes)
    make_deterministic(seed)
    with tempfile.TemporaryDirectory() as folder:
        data = locate(paper.passport(variant))
        job = Job(paper, variant, "full", seed, recipe, True, data, "cpu", Path(folder), False, "choose")
        curves = train(Run(job), recipe).curves
    words = " ".join(f"{name}={value}" for name, value in changes.items()) or "as frozen"
    return {
        "variant": variant,
        "changes": words,
        "seed": seed,
        "held_out_error": round(curves["held_out_error"][-1], 2),
        "train_error": round(curves["train_error"][-1], 2),
    }
