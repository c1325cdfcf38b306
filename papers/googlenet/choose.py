"""How the open questions were settled: every try, measured on a fifth of the training pictures, which was held out.
The test pictures are not touched.

    bash reproduce.sh googlenet --held-out true [OTHER OPTIONS]
    python -m papers.googlenet.choose RECORD ...

Puts the runs whose records are named into choices.csv beside this file, and shows all of them in README.md.
"""

import sys
from pathlib import Path

from common.base.errors import UsageError, UserError
from common.pages.pages import markdown_table
from common.training.records import Record, read_record
from common.training.tries import by_guess, in_words, keep_tries, known_tries, show_on_page

FILE, PAGE = (Path(__file__).with_name(name) for name in ("choices.csv", "README.md"))

# The open fields of the recipe, and where the search started.
START = {
    "side": 112, "distortion": 0.4, "grey_level": 1.0, "initial_weights": "he", "epochs": 50, "batch_size": 32,
    "learning_rate": 0.01, "weight_decay": 0.0002, "averaging": 0.99,
}  # fmt: skip
ERRORS = {
    "one_crop": "held-out error, 1 crop (%)",
    "ten_crops": "10 crops (%)",
    "training": "training error, 1 crop (%)",
}
DIVERGED = "diverged"


def one_try(record: Record) -> dict[str, str]:
    """What choices.csv keeps of a run.

    Raises:
        UsageError: the run was tested on the test pictures.
    """
    if not record.recipe["held_out"]:
        raise UsageError(f"{record.name}: only runs with `--held-out true` settle a question.")
    errors = dict.fromkeys(ERRORS, DIVERGED)
    if record.status == "finished":
        one, ten = record.metrics["1-crop"], record.metrics["10-crop"]
        numbers = one["test_error"], ten["test_error"], one["train_error"]
        errors = {name: f"{error:.1f}" for name, error in zip(ERRORS, numbers, strict=True)}
    return {
        "variant": record.variant,
        **{name: str(record.recipe[name]) for name in START},
        "seed": str(record.seed),
        **errors,
        "device": record.environment.device,
    }


def page_block(tries: list[dict[str, str]]) -> str:
    """As README.md shows them: a line for each variant and guess, all its seeds."""
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in tries):
        groups = by_guess([row for row in tries if row["variant"] == variant], START)
        for name, group in groups.items():
            cells = [", ".join(row[column] for row in group) for column in ("seed", *ERRORS)]
            lines.append([variant, name or "the start", *cells])
    table = markdown_table(lines, ["variant", "differs from the start in", "seeds", *ERRORS.values()])
    return f"Every try. The search started from {in_words(START)}.\n\n{table}"


def main(records: list[Path]) -> None:
    tries = known_tries(FILE)
    tries += [found for path in records if (found := one_try(read_record(path))) not in tries]
    if tries:
        keep_tries(FILE, sorted(tries, key=lambda row: (row["variant"], list(row.values()))))
    show_on_page(PAGE, page_block(known_tries(FILE)))


if __name__ == "__main__":
    try:
        main([Path(name) for name in sys.argv[1:]])
    except UserError as error:
        sys.exit(str(error))
