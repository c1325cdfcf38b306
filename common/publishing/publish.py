"""`publish`: from runs/ into results/."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from common.base import paths
from common.base.errors import CheckFailed, DataError, NumbersError, SomeFailed, UsageError, UserError
from common.base.progress import say
from common.claims.generations import keep_generation
from common.claims.papers import Paper
from common.claims.rows import paper_rows
from common.data.passports import file_sha256, search_folders
from common.publishing.checks import missing_seeds, number_faults, run_faults, why_not
from common.publishing.measure import holds, measure, measure_record, recorded_data, recorded_recipe
from common.training.records import (
    FinishedRecord,
    Record,
    Rounded,
    Weights,
    published_records,
    published_seed,
    read_run,
    write_record,
)
from common.training.weights import RUN_WEIGHTS, load_weights, rounded, save_weights, weights_hash, widened

LARGEST_WEIGHTS, LARGEST_ROUNDED = 4_000_000, 12_000_000  # bytes, of weights as they are and in float16


def publish_runs(paper: Paper, runs_dir: Path, data_dir: Path | None, replace: bool = False) -> None:
    """Copy every finished or failed full run that may be published, then the weights of the
    seed nearest the mean; then rebuild the tables. A run that is refused does not hold the others back.

    Args:
        replace: first replace what is published for the same seeds with another outcome.

    Raises:
        UsageError: nothing to publish; or as `_replace`.
        CheckFailed, DataError: as `_replace`; or `data_dir` is not there; or what is published now leaves a seed out.
        SomeFailed: some are not what a published record must be, or differ from one that is published already.
    """
    from common.pages.tables import rebuild

    search_folders(data_dir)  # a mistyped folder is no fault of any run
    new = _replace(paper, runs_dir, data_dir) if replace else 0
    old = -new  # those that are replaced are met once more below
    refused: dict[object, UserError] = {}
    for path in _run_files(paper, runs_dir):
        with _refusing(path, refused):
            record = read_run(path)
            if why := why_not(paper, record):
                say(f"not published: {path} ({why})")
                continue
            if publish_one(paper, record, path, data_dir):
                new += 1
            else:
                old += 1
    if not (new or old or refused):
        allowed = "only full, unmodified runs on real data from committed sources"
        raise UsageError(f"{runs_dir / paper.name} holds nothing to publish: {allowed}.")
    for variant in paper.variants:
        with _refusing(f"weights of {variant}", refused):
            new += publish_weights(paper, variant, runs_dir, data_dir)
    rebuild()
    if refused:
        raise SomeFailed(next(iter(refused.values())), f"Not published, see above: {', '.join(map(str, refused))}.")
    say_what_is_new(paper, new, old)
    if gaps := missing_seeds(published_records(paper.name)):
        raise CheckFailed(f"{'; '.join(gaps)}. Run it too, then publish again.")


def say_what_is_new(paper: Paper, new: int, old: int) -> None:
    """How `publish` ends: how many files it added, and how many of the records it was given it found there."""
    before = f", {old} record{'s were' if old > 1 else ' was'} there before" if old else ""
    say(f"{paper.name}: {new or 'nothing'} new in results/{before}; tables and figures rebuilt.")


def _run_files(paper: Paper, runs_dir: Path) -> list[Path]:
    return sorted((runs_dir / paper.name).glob("*/full-*/seed-*/record.json"))


def _replace(paper: Paper, runs_dir: Path, data_dir: Path | None) -> int:
    """Put the records of these runs in the places of published ones with another outcome, and keep what those said as
    an earlier generation. Nothing is touched before all new ones are ready.

    Returns:
        How many were replaced.

    Raises:
        UsageError: some seeds of a variant have no new run: a generation is replaced as a whole; or as `_ready`.
        CheckFailed, DataError: as `_ready`.
    """
    runs = {path: read_run(path) for path in _run_files(paper, runs_dir)}
    files = {run.path(): path for path, run in runs.items() if not why_not(paper, run)}
    new = {place: runs[path] for place, path in files.items()}
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in published_records(paper.name):
        groups.setdefault((record.variant, record.data.edition), []).append(record)
    replaced = {
        name: published
        for name, published in groups.items()
        if any(r.path() in new and _outcome(new[r.path()]) != _outcome(r) for r in published)
    }
    for (variant, edition), published in replaced.items():
        if missing := [str(r.seed) for r in published if r.path() not in new]:
            seeds = ", ".join(missing)
            raise UsageError(f"{variant} ({edition}) is replaced as a whole: run seeds {seeds} again too.")

    def prepared(record: Record) -> Record:
        path = record.path()
        try:
            return _ready(paper, new[path], files[path], data_dir)
        except CheckFailed as fault:
            raise CheckFailed(f"{files[path]}: {fault}") from None

    ready = {name: [prepared(record) for record in published] for name, published in replaced.items()}
    for (variant, edition), records in ready.items():
        keep_generation(paper, replaced[variant, edition], records)
        for record in records:
            write_record(record, record.path())
        say(f"replaced: {len(records)} records of {variant} ({edition})")
    return sum(map(len, ready.values()))


@contextlib.contextmanager
def _refusing(what: object, refused: dict[object, UserError]) -> Iterator[None]:
    """What goes wrong with one run is reported and remembered."""
    try:
        yield
    except (UsageError, CheckFailed, DataError, NumbersError) as error:
        say(f"not published: {what} ({error})")
        refused[what] = error


def publish_one(paper: Paper, record: Record, path: Path, data_dir: Path | None) -> bool:
    """Write a record to its place in results/, its weights measured again.

    Returns:
        Whether it was not there before.

    Raises:
        UsageError: it is published already with another outcome; or as `_ready`.
        CheckFailed, DataError: as `_ready`.
    """
    before = published_seed(record)
    if before is not None:
        if _outcome(before) != _outcome(record):
            advice = "To replace all seeds of the variant with new runs: publish --replace."
            raise UsageError(f"{record.path()} is published already and differs. {advice}")
        return False
    record = _ready(paper, record, path, data_dir)
    write_record(record, record.path())
    say(f"published {record.path().relative_to(paths.ROOT)}")
    return True


def _ready(paper: Paper, record: Record, path: Path, data_dir: Path | None) -> Record:
    """A run's record as it is published: with what its weights measure on the CPU in fp32.

    Raises:
        UsageError: its weights are not there.
        CheckFailed: it is not what a published record must be.
        DataError: the data is unavailable or damaged.
    """
    _refuse(run_faults(paper, record))
    if isinstance(record, FinishedRecord):
        data = recorded_data(paper, record, data_dir)
        measured = measure_record(paper, record, data, path.with_name(RUN_WEIGHTS))
        weights = record.weights.model_copy(update={"file": None})
        record = record.model_copy(update={"remeasured": measured.metrics, "weights": weights})
    _refuse(number_faults(paper, record))
    return record


def _refuse(faults: list[str]) -> None:
    if faults:
        raise CheckFailed("; ".join(faults))


def _outcome(record: Record) -> tuple:
    """What two runs of one seed must agree on to be the same result."""
    return record.status, record.recipe_hash, record.metrics, record.weights and record.weights.sha256


def publish_weights(paper: Paper, variant: str, runs_dir: Path, data_dir: Path | None = None) -> bool:
    """Publish the weights of the seed nearest the mean of the first of the variant's rows. Large ones are published of
    one variant only, which paper.yaml names, rounded to float16.

    Returns:
        Whether they were not there before.

    Raises:
        UsageError, NumbersError, DataError: as `write_rounded`.
    """
    records = [record for record in published_records(paper.name) if record.variant == variant]
    finished = [record for record in records if isinstance(record, FinishedRecord)]
    nearest = _nearest_the_mean(paper, records, finished)
    if nearest is None:
        return False
    target = paths.WEIGHTS / paper.name / f"{variant}.safetensors"
    there = target.exists() and holds(target, nearest)
    weights = nearest.weights if there else _write_weights(paper, nearest, target, runs_dir, data_dir)
    if weights is None:
        return False
    file = str(target.relative_to(paths.ROOT))
    for record in finished:
        now = weights.model_copy(update={"file": file}) if record is nearest else Weights(sha256=record.weights.sha256)
        if record.weights != now:
            write_record(record.model_copy(update={"weights": now}), record.path())
    return not there


def _nearest_the_mean(paper: Paper, records: list[Record], finished: list[FinishedRecord]) -> FinishedRecord | None:
    """Of a variant's finished seeds the one nearest the mean of the first of its rows; None without such a row."""
    row = next((row for row in paper_rows(paper, records) if row.summary), None)
    if not (row and row.summary and row.protocol and row.metric):
        return None
    group = [record for record in finished if record.data.edition == row.edition]
    mean, values = row.summary.mean, {r.seed: r.metrics.get(row.protocol, {}).get(row.metric, math.inf) for r in group}
    return min(group, key=lambda r: (abs(values[r.seed] - mean), r.seed))


def _write_weights(
    paper: Paper, record: FinishedRecord, target: Path, runs_dir: Path, data_dir: Path | None
) -> Weights | None:
    """Publish the weights that a record's run left, and say so. None if they are not there, or too large."""
    folder = runs_dir / paper.name / record.variant / f"full-{record.data.edition}" / f"seed-{record.seed}"
    source = folder / RUN_WEIGHTS
    weights = load_weights(source) if source.exists() else {}
    if weights_hash(weights) != record.weights.sha256:
        say(f"weights of {record.variant} are left as they are: those of seed {record.seed} are not in {source}")
        return None
    float16 = None
    if source.stat().st_size <= LARGEST_WEIGHTS:
        save_weights(weights, target, record.run, record.recipe)
    elif record.variant == paper.weights_of:
        float16 = write_rounded(paper, record, weights, target, data_dir)
    else:
        say(f"weights of {record.variant} stay unpublished: over {LARGEST_WEIGHTS / 1e6:g} MB")
        return None
    kind = " in float16" if float16 else ""
    say(f"published {target.relative_to(paths.ROOT)}, the weights of seed {record.seed}{kind}")
    return Weights(sha256=record.weights.sha256, float16=float16)


def write_rounded(
    paper: Paper, record: FinishedRecord, weights: dict[str, Tensor], target: Path, data_dir: Path | None
) -> Rounded:
    """Round a record's weights to float16 and measure what is left of them on the CPU, then write them.

    Raises:
        UsageError: they are too large even so.
        NumbersError: one is too large a number for float16.
        DataError: the data is unavailable or damaged.
    """
    half = rounded(weights)
    if (size := sum(tensor.nbytes for tensor in half.values())) > LARGEST_ROUNDED:
        raise UsageError(f"{size / 1e6:.1f} MB in float16: up to {LARGEST_ROUNDED / 1e6:g} MB are published")
    if lost := sum(int((weights[name].ne(0) & tensor.eq(0)).sum()) for name, tensor in half.items()):
        say(f"weights of {record.variant}: {lost:,} are too small for float16 and become 0")
    data, recipe = recorded_data(paper, record, data_dir), recorded_recipe(paper, record)
    measured = measure(paper, widened(half), recipe, data, "cpu")
    save_weights(half, target, record.run, record.recipe, rounded_from=record.weights.sha256)
    return Rounded(sha256=file_sha256(target), metrics=measured.metrics)
