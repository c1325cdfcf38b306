"""How the printed recipe was made to train, `--preset quick` to reach its aim, and what our hour was chosen from: every
try, measured on every tenth picture of Train400, which was held out. The test sets are not touched.

    python -m papers.dncnn.choose [RECORD OF A RUN ...]

Makes the short tries of the printed recipe that are not yet in choices.csv beside this file, puts the runs whose
records are named, those of `--preset quick` into quick.csv and full ones with `--held-out true` into held_out.csv, and
shows all of them in README.md.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from common.base.errors import NumbersError, UserError
from common.claims.papers import load_paper
from common.data.passports import locate
from common.pages.pages import markdown_table
from common.training import provenance
from common.training.determinism import make_deterministic
from common.training.records import FinishedRecord, Record, read_record
from common.training.run import Job, Run
from common.training.tries import by_guess, in_words, keep_tries, known_tries, show_on_page
from papers.dncnn.train import VARIANTS, train

FILE, QUICK_FILE, HELD_OUT_FILE = (
    Path(__file__).with_name(name) for name in ("choices.csv", "quick.csv", "held_out.csv")
)
PAGE = Path(__file__).with_name("README.md")
VARIANT = "sigma25-printed"
EPOCHS, EPOCH_PATCHES, BATCH_SIZE = 2, 1024, 32

# What the paper prints, taken at its word; then what differs, and the seeds.
START = {"rate": 0.1, "last_rate": 1e-4, "initial_weights": "he", "clip": 0.0}
TRIES: list[tuple[dict, tuple[int, ...]]] = [
    ({}, (0, 1)),
    ({"initial_weights": "authors"}, (0, 1)),
    ({"rate": 0.1 / 1600, "last_rate": 1e-4 / 1600}, (0, 1)),  # the loss as a mean over a patch's pixels
    ({"clip": 0.005}, (0,)),
]
DIVERGED = "diverged"

HELD_OUT_PROTOCOL, QUICK_EPOCHS_SHOWN = "held-out-sigma25", (1, 2, 4, 8, 12, 16)
# In the recipes of ours.
CHOSEN = ("learning_rate", "epoch_patches", "batch_size", "side", "initial_weights", "noise", "restart")


def one_try(changes: dict, seed: int) -> dict:
    """Train for 64 steps. PSNR in dB after the last, or that the loss became infinite."""
    make_deterministic(seed)
    values = START | changes
    recipe = replace(
        VARIANTS[VARIANT], learning_rate=((EPOCHS, values["rate"], values["last_rate"]),),
        initial_weights=values["initial_weights"], clip=values["clip"], epoch_patches=EPOCH_PATCHES,
        batch_size=BATCH_SIZE, held_out=True,
    )  # fmt: skip
    paper = load_paper("dncnn")
    with tempfile.TemporaryDirectory() as folder:
        data, code = locate(paper.passport(VARIANT)), provenance.code(paper.name)
        run = Run(Job(paper.name, VARIANT, "full", seed, recipe, True, data, "cpu", Path(folder), "choose", code))
        try:
            train(run, recipe)
            found = f"{run.curves['psnr'][-1]:.2f}"
        except NumbersError:
            found = DIVERGED
    return values | {"seed": seed, "held_out_psnr": found}


def quick_run(record: Record) -> dict:
    """What quick.csv keeps of a run of `--preset quick`, by default or with some of its recipe overridden."""
    return {
        "variant": record.variant,
        **{name: str(record.recipe[name]) for name in ("batch_size", "bn_momentum", "learning_rate")},
        "seed": str(record.seed),
        "curve": " ".join(f"{value:.2f}" for value in record.curves["psnr"]),
        "held_out_psnr": f"{record.metrics[HELD_OUT_PROTOCOL]['psnr']:.2f}",
        "minutes": f"{record.times.training_seconds / 60:.0f}",
        "commit": record.code.commit,
    }


def held_out_run(record: Record) -> dict:
    """What held_out.csv keeps of a run of a full recipe, by default or with some of it overridden."""
    finished = isinstance(record, FinishedRecord)
    return {
        "variant": record.variant,
        **{name: str(record.recipe[name]) for name in CHOSEN},
        "seed": str(record.seed),
        "curve": " ".join(f"{value:.2f}" for value in record.curves["psnr"]) if finished else "",
        "held_out_psnr": f"{record.metrics[HELD_OUT_PROTOCOL]['psnr']:.3f}" if finished else DIVERGED,
        "device": record.environment.device,
        "commit": record.code.commit,
    }


def keep_run(record: Record) -> None:
    """Put a run into the list that it belongs to, once."""
    quick = record.preset == "quick"
    file, found = (QUICK_FILE, quick_run(record)) if quick else (HELD_OUT_FILE, held_out_run(record))
    runs = known_tries(file)
    if found not in runs:
        keep_tries(file, [*runs, found])


def main(records: list[Path]) -> None:
    for path in records:
        keep_run(read_record(path))
    done = known_tries(FILE)
    keys = {tuple(row[name] for name in (*START, "seed")) for row in done}
    for changes, seeds in TRIES:
        for seed in seeds:
            if tuple(map(str, (*(START | changes).values(), seed))) not in keys:
                done.append(one_try(changes, seed))
                keep_tries(FILE, done)
                print(done[-1], flush=True)
    show_on_page(PAGE, page_block(*map(known_tries, (FILE, QUICK_FILE, HELD_OUT_FILE))))


def page_block(tries: list[dict], runs: list[dict], held_out: list[dict]) -> str:
    """As README.md shows them: a line for each guess, all its seeds; and a line for each run."""
    lines = [
        [name or "what is printed", *(", ".join(row[kind] for row in group) for kind in ("seed", "held_out_psnr"))]
        for name, group in by_guess(tries, START).items()
    ]
    steps = EPOCHS * EPOCH_PATCHES // BATCH_SIZE
    about = f"{steps} steps of {BATCH_SIZE} patches at noise level 25. What is printed is {in_words(START)}."
    printed = markdown_table(lines, ["differs in", "seeds", "held-out PSNR (dB)"])

    rows = []
    for run in runs:
        curve = run["curve"].split()
        shown = ", ".join(curve[number - 1] for number in QUICK_EPOCHS_SHOWN if number <= len(curve))
        rows.append(
            [run["variant"], run["batch_size"], run["bn_momentum"], in_epochs(run["learning_rate"]), run["seed"], shown,
             run["held_out_psnr"], run["minutes"], run["commit"][:7]]
        )  # fmt: skip
    epochs = "PSNR after epochs " + ", ".join(map(str, QUICK_EPOCHS_SHOWN))
    head = ["variant", "`batch_size`", "`bn_momentum`", "`learning_rate`", "seed", epochs]
    quick = markdown_table(rows, [*head, "at the end", "minutes", "commit"])
    runs_of = "Every run of `--preset quick`, in order; minutes are by the clock, including other work and pauses:"
    return f"Every try: {about}\n\n{printed}\n\n{runs_of}\n\n{quick}{full_runs(held_out)}"


def full_runs(runs: list[dict]) -> str:
    """Full runs with pictures held out, '' if there are none."""
    if not runs:
        return ""
    rows = [
        [run["variant"], in_epochs(run["learning_rate"]), *(run[name] for name in (*CHOSEN[1:], "seed", "curve")),
         run["held_out_psnr"], run["device"], run["commit"][:7]]
        for run in runs
    ]  # fmt: skip
    head = ["variant", *(f"`{name}`" for name in CHOSEN), "seed", "PSNR after each epoch", "at the end"]
    title = "Every full run with pictures held out, in order; variants are those of the commit in the last column:"
    return f"\n\n{title}\n\n{markdown_table(rows, [*head, 'device', 'commit'])}"


def in_epochs(schedule: str) -> str:
    parts = [
        f"{epochs} epoch{'s' * (epochs > 1)} " + (f"at {first:g}" if first == last else f"from {first:g} to {last:g}")
        for epochs, first, last in json.loads(schedule)
    ]
    return ", ".join(parts)


if __name__ == "__main__":
    try:
        main([Path(name) for name in sys.argv[1:]])
    except UserError as error:
        sys.exit(str(error))
