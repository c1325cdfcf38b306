"""From the words of a command to the records of all its seeds."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from common.base.errors import NumbersError, UsageError
from common.base.progress import say, warn
from common.claims.papers import Paper
from common.data.find import find_data
from common.data.passports import LocatedData
from common.training import provenance
from common.training.device import choose_device
from common.training.processes import Processes, joined, launch, processes_here
from common.training.recipes import override
from common.training.records import Record, read_record
from common.training.run import Job, run_job


def run_seeds(
    paper: Paper,
    overrides: list[str],
    words: list[str],
    *,
    variant: str | None,
    preset: str,
    seeds: Iterable[int],
    device: str,
    data: str,
    data_dir: Path | None,
    runs_dir: Path,
    fresh: bool,
    other_machine: bool,
    options: Iterable[str] = (),
) -> list[Record]:
    """Train and evaluate every seed; one whose numbers go bad does not keep the others from running.

    Args:
        overrides: `--field value` pairs of the recipe.
        words: the whole command, for the record.
        options: the options besides the fields, to suggest where a name is mistyped.
    """
    variant = paper.variant(variant)
    train = paper.module("train")
    override(train.recipe(variant, preset), overrides, options)  # a slip is reported before data is looked for
    device = choose_device(device, paper.name, train.DEVICES)
    with joined(device) as processes:
        located = _find(paper, variant, preset, data, data_dir, processes)
        if preset == "full" and device == "cpu" and made_for_gpu(paper, variant) and not located.standin:
            warn(f"{variant} is made for a GPU: on a CPU it may take days. --preset quick is for CPUs.")
        planned = train.recipe(variant, preset, located.standin)
        recipe = override(planned, overrides)
        publishable = preset == "full" and not located.standin and recipe == planned
        if publishable and processes.first and (why := provenance.why_not_committed(paper.name)):
            warn(f"What this run gives cannot be published: {why}.")
        command, code = recorded_command(words), provenance.code(paper.name)

        def job(seed: int) -> Job:
            return Job(
                paper=paper.name, variant=variant, preset=preset, seed=seed, recipe=recipe, modified=recipe != planned,
                data=located, device=device, runs_dir=runs_dir, command=command, code=code, fresh=fresh,
                other_machine=other_machine, processes=processes,
            )  # fmt: skip

        return [_run_seed(job(seed)) for seed in seeds]


def _find(
    paper: Paper, variant: str, preset: str, data: str, data_dir: Path | None, processes: Processes
) -> LocatedData:
    """The data of a run; of several processes the first one fetches it."""
    if processes.first:
        located = find_data(paper.passport(variant), preset, data, data_dir)
    processes.from_first(None)
    return located if processes.first else find_data(paper.passport(variant), preset, data, data_dir)


def _run_seed(job: Job) -> Record:
    """The record of one seed, a failed one too."""
    try:
        record, reused = run_job(job)
    except NumbersError as error:
        say(str(error))
        return read_record(job.record_file)
    if reused:
        say(f"seed {record.seed} was finished before and is shown as it was; --fresh runs it again.")
    return record


def made_for_gpu(paper: Paper, variant: str) -> bool:
    return any(claim.needs.device == "GPU" for claim in paper.claims if claim.variant == variant)


def recorded_command(words: list[str]) -> str:
    """The command as the user would type it again, without the folders of this machine."""
    kept, skip = [], False
    for word in words:
        if skip or word.startswith(("--data-dir=", "--runs-dir=")):
            skip = False
        elif word in ("--data-dir", "--runs-dir"):
            skip = True
        else:
            kept.append(word)
    return shlex.join(["bash", "reproduce.sh", *kept])


def launched(paper: Paper, count: int | None, words: list[str]) -> int | None:
    """Start the processes that `--nproc` asks for, and wait for them: their exit code. None in each of them, and where
    one process does the work itself.

    Raises:
        UsageError: the paper trains on one device only.
    """
    if count in (None, 1) or processes_here().count > 1:
        return None
    if not getattr(paper.module("train"), "SEVERAL_DEVICES", False):
        raise UsageError(f"{paper.name} trains on one device: leave out --nproc.")
    return launch(count, words)
