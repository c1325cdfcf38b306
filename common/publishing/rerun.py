"""`verify --rerun`: one published seed trained again, by the sources of its own commit. The one check that a consistent
forgery does not pass: whoever wrote the record would have had to find weights that training ends with."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common.base import paths
from common.base.duration import duration
from common.base.errors import MachineError, UsageError, UserError
from common.base.metrics import METRICS
from common.base.progress import say
from common.claims.papers import Paper
from common.claims.verdict import NEXT_RUN, summarise
from common.data.find import real_data
from common.publishing.checks import differences, place
from common.publishing.history import NoHistory, checked_out, in_history, require_history
from common.publishing.measure import same_data
from common.publishing.plausible import on_cpu
from common.training.provenance import MACHINE, differing
from common.training.records import FailedRecord, FinishedRecord, Record, published_records, read_record
from common.training.weights import RUN_WEIGHTS, load_weights, rounded, weights_hash, widened


def records_of(paper: Paper, variant: str, seed: int) -> list[FinishedRecord]:
    """The published records of a seed, one for each edition that it was measured on.

    Raises:
        UsageError: there is none, or the seed failed.
    """
    published = [record for record in published_records(paper.name) if isinstance(record, FinishedRecord)]
    found = [record for record in published if (record.variant, record.seed) == (variant, seed)]
    if not found:
        raise UsageError(f"No finished record of seed {seed} of {variant} is published.")
    return found


def rerun(paper: Paper, records: list[FinishedRecord], data_dir: Path | None) -> tuple[bool | None, str]:
    """Train a published seed again and compare.

    Args:
        records: of the seed; the one of the edition that is here is compared.

    Returns:
        Whether the record stands, None where nothing could be compared; and what was found.

    Raises:
        UserError: training stopped; it has said why.
        DataError: the data is unavailable or damaged.
    """
    data = real_data(paper.passport(records[0].variant), data_dir)
    published = next((record for record in records if record.data.files == data.files), records[0])
    same_data(published, data)
    with _sources(published) as (tree, whose), tempfile.TemporaryDirectory() as runs:
        say(f"{place(published)} is trained again by {whose}; it took {duration(published.times.wall_seconds)}")
        again = _trained(published, tree, Path(runs), data_dir)
        stands, found = compare(paper, published, again, whose)
        if stands and published.weights.float16 and not _rounds_to_file(published, Path(runs)):
            return False, f"{found}, but rounded to float16 they are not those of {published.weights.file}"
    return stands, found


def _rounds_to_file(published: FinishedRecord, runs: Path) -> bool:
    """Whether a record's published file has its weights, rounded; True where training again gave others."""
    again = load_weights(next(runs.rglob(RUN_WEIGHTS)))
    if weights_hash(again) != published.weights.sha256:
        return True
    file = load_weights(paths.ROOT / (published.weights.file or ""))
    return weights_hash(file) == weights_hash(widened(rounded(again)))


def compare(paper: Paper, published: FinishedRecord, again: Record, whose: str) -> tuple[bool | None, str]:
    """What a run of the same seed says of a published record.

    Args:
        whose: the sources that it was trained by.
    """
    by = f"trained again by {whose}"
    if again.recipe_hash != published.recipe_hash:
        return False, f"{by}, whose recipe is not the recorded one"
    apart = _machine_differences(published, again)
    if isinstance(again, FailedRecord):
        return (None if apart else False), f"{by}: failed ({again.failure}){_but(apart)}"
    if again.weights.sha256 == published.weights.sha256:
        other = differences(again.metrics, published.metrics)
        other += ["its curves differ"] if not apart and again.curves != published.curves else []
        return not other, f"{by}: the very bits of the record{', but ' * bool(other)}{'; '.join(other)}"
    if not apart:
        return False, f"{by}, on the same kind of machine: other bits than the record's"
    stands, numbers = _within_spread(paper, published, again)
    return stands, f"{by}: other bits{_but(apart)}; by the weaker check, {numbers}"


@contextlib.contextmanager
def _sources(record: Record) -> Iterator[tuple[Path, str]]:
    """The sources that a record ran from, and what they are called; today's where the history does not have them."""
    commit = record.code.commit or ""
    try:
        require_history()
        known = in_history(commit)
    except NoHistory as why:
        say(f"{why}: today's sources are used")
        yield paths.ROOT, "today's sources"
        return
    if not known:
        raise UsageError(f"{place(record)}: its commit {record.code.short_commit} is not in the history.")
    with checked_out(commit) as tree:
        (tree / "data").symlink_to(paths.DATA)
        yield tree, f"the sources of {commit[:7]}"


def _trained(record: FinishedRecord, tree: Path, runs: Path, data_dir: Path | None) -> Record:
    """The record of a run of the same seed, in a process of its own, with as many threads."""
    words = [record.paper, "--variant", record.variant, "--seeds", str(record.seed), "--device", _device(record)]
    words += ["--data", "real", "--runs-dir", str(runs)] + (["--data-dir", str(data_dir)] if data_dir else [])
    threads = str(record.environment.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": paths.python_path(tree)}
    command = [sys.executable, "-P", "-m", "common", *words]
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    for file in runs.rglob("record.json"):
        return read_record(file)
    stopped = UserError(f"Training {place(record)} again stopped with exit code {done.returncode}.")
    stopped.code = done.returncode if done.returncode > 0 else MachineError.code  # below 0: killed by a signal
    raise stopped


def _device(record: FinishedRecord) -> str:
    """The record's kind of device, or where that is not here, whatever the paper takes."""
    import torch

    if on_cpu(record.environment):
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "auto"


def _machine_differences(published: FinishedRecord, again: Record) -> list[str]:
    """What the last bits may depend on, and differs: of the machine, and of the sources where they are today's."""
    apart = differing(again.environment, published.environment, (*MACHINE, "compiled"))
    apart += ["other sources"] if again.code.sources != published.code.sources else []
    return [*apart, "the record was begun on yet another"] if published.earlier_environments else apart


def _but(apart: list[str]) -> str:
    return f", but not on the same kind of machine ({'; '.join(apart)})" if apart else ""


def _within_spread(paper: Paper, published: FinishedRecord, again: FinishedRecord) -> tuple[bool | None, str]:
    """Whether every number lies where one more run of the published seeds would. Honest runs pass in 95 of 100 cases,
    all their numbers together."""
    group = published.variant, published.data.edition
    finished = [record for record in published_records(paper.name) if isinstance(record, FinishedRecord)]
    seeds = [record for record in finished if (record.variant, record.data.edition) == group]
    numbers = [(p, m, value) for p, values in again.metrics.items() for m, value in values.items()]
    outside = []
    for protocol, metric, value in numbers:
        values = [seed.metrics[protocol][metric] for seed in seeds if metric in seed.metrics.get(protocol, {})]
        level = 1 - (1 - NEXT_RUN) / len(numbers)
        count, possible = paper.count(published.variant, metric), METRICS[metric].range
        spread = summarise(values, count, possible, level).spread if values else None
        if spread is None:
            return None, "nothing: too few seeds are published to have a spread"
        if not spread.next_low <= value <= spread.next_high:
            outside.append(f"{metric} ({protocol}) is {value:g}, not {spread.next_low:g} to {spread.next_high:g}")
    found = "; ".join(outside) or f"every number lies where one more run of the {len(seeds)} seeds would"
    return not outside, found
