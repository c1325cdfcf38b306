"""`publish`: from runs/ into results/."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

from common.base import paths
from common.base.errors import CheckFailed, DataError, NumbersError, SomeFailed, UsageError, UserError
from common.base.progress import say
from common.claims.generations import keep_generation
from common.claims.papers import Paper
from common.claims.rows import paper_rows
from common.data.passports import search_folders
from common.publishing.checks import number_faults, run_faults, why_not
from common.publishing.measure import measure_record, recorded_data
from common.training.records import FinishedRecord, Record, published_records, published_seed, read_run, write_record
from common.training.weights import RUN_WEIGHTS, load_weights, save_weights, weights_hash

LARGEST_WEIGHTS = 4_000_000  # bytes


def publish_runs(paper: Paper, runs_dir: Path, data_dir: Path | None, replace: bool = False) -> None:
    """Copy every finished or failed full run that may be published, then the weights of the
    seed nearest the mean; then rebuild the tables. A run that is refused does not hold the others back.

    Args:
        replace: first set aside what is published for the same seeds with another outcome.

    Raises:
        UsageError: nothing to publish; or as `_set_aside`.
        DataError: `data_dir` is not there.
        SomeFailed: some are not what a published record must be, or differ from one that is published already.
    """
    from common.pages.tables import rebuild

    search_folders(data_dir)  # a mistyped folder is no fault of any run
    if replace:
        _set_aside(paper, runs_dir)
    new = old = 0
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
            new += publish_weights(paper, variant, runs_dir)
    rebuild()
    if refused:
        raise SomeFailed(next(iter(refused.values())), f"Not published, see above: {', '.join(map(str, refused))}.")
    say_what_is_new(paper, new, old)


def say_what_is_new(paper: Paper, new: int, old: int) -> None:
    """How `publish` ends: how many files it added, and how many of the records it was given it found there."""
    before = f", {old} record{'s were' if old > 1 else ' was'} there before" if old else ""
    say(f"{paper.name}: {new or 'nothing'} new in results/{before}; tables and figures rebuilt.")


def _run_files(paper: Paper, runs_dir: Path) -> list[Path]:
    return sorted((runs_dir / paper.name).glob("*/full-*/seed-*/record.json"))


def _set_aside(paper: Paper, runs_dir: Path) -> None:
    """Remove the published records that these runs replace, and keep what they said as an earlier generation.

    Raises:
        UsageError: some seeds of a variant have no new run: a generation is replaced as a whole.
        CheckFailed: a run is not what a published record must be.
    """
    runs = [read_run(path) for path in _run_files(paper, runs_dir)]
    new = {run.path(): run for run in runs if not why_not(paper, run)}
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in published_records(paper.name):
        groups.setdefault((record.variant, record.data.edition), []).append(record)
    replaced = {
        name: published
        for name, published in groups.items()
        if any(r.path() in new and _outcome(new[r.path()]) != _outcome(r) for r in published)
    }
    for (variant, edition), published in replaced.items():  # all of them before any is touched
        if missing := [str(r.seed) for r in published if r.path() not in new]:
            seeds = ", ".join(missing)
            raise UsageError(f"{variant} ({edition}) is replaced as a whole: run seeds {seeds} again too.")
        for record in published:
            _refuse(run_faults(paper, new[record.path()]))
    for (variant, edition), published in replaced.items():
        keep_generation(paper, published, [new[record.path()] for record in published])
        for record in published:
            record.path().unlink()
        say(f"set aside: {len(published)} records of {variant} ({edition})")


@contextlib.contextmanager
def _refusing(what: object, refused: dict[object, UserError]) -> Iterator[None]:
    """What goes wrong with one run is reported and remembered."""
    try:
        yield
    except (UsageError, CheckFailed, DataError, NumbersError) as error:
        say(f"not published: {what} ({error})")
        refused[what] = error


def publish_one(paper: Paper, record: Record, path: Path, data_dir: Path | None) -> bool:
    """Re-measure a record's weights on the CPU in fp32, and write it to its place in results/.

    Returns:
        Whether it was not there before.

    Raises:
        UsageError: it is published already with another outcome, or its weights are not there.
        CheckFailed: it is not what a published record must be.
    """
    before = published_seed(record)
    if before is not None:
        if _outcome(before) != _outcome(record):
            advice = "To replace all seeds of the variant with new runs: publish --replace."
            raise UsageError(f"{record.path()} is published already and differs. {advice}")
        return False
    _refuse(run_faults(paper, record))
    if isinstance(record, FinishedRecord):
        data = recorded_data(paper, record, data_dir)
        measured = measure_record(paper, record, data, path.with_name(RUN_WEIGHTS))
        weights = record.weights.model_copy(update={"file": None})
        record = record.model_copy(update={"remeasured": measured.metrics, "weights": weights})
    _refuse(number_faults(paper, record))
    write_record(record, record.path())
    say(f"published {record.path().relative_to(paths.ROOT)}")
    return True


def _refuse(faults: list[str]) -> None:
    if faults:
        raise CheckFailed("; ".join(faults))


def _outcome(record: Record) -> tuple:
    """What two runs of one seed must agree on to be the same result."""
    return record.status, record.recipe_hash, record.metrics, record.weights and record.weights.sha256


def publish_weights(paper: Paper, variant: str, runs_dir: Path) -> bool:
    """Publish the weights of the seed nearest the mean of the first of the variant's rows.

    Returns:
        Whether they were not there before.
    """
    published = published_records(paper.name)
    finished = [r for r in published if r.variant == variant and isinstance(r, FinishedRecord)]
    row = next((row for row in paper_rows(paper, published) if row.variant == variant and row.summary), None)
    if not (row and row.summary and row.protocol and row.metric):
        return False
    group = [r for r in finished if r.data.edition == row.edition]
    mean, values = row.summary.mean, {r.seed: r.metrics.get(row.protocol, {}).get(row.metric, math.inf) for r in group}
    nearest = min(group, key=lambda r: (abs(values[r.seed] - mean), r.seed))
    target = paths.WEIGHTS / paper.name / f"{variant}.safetensors"
    file = str(target.relative_to(paths.ROOT))
    new = not (target.exists() and weights_hash(load_weights(target)) == nearest.weights.sha256)
    if new:
        folder = runs_dir / paper.name / variant / f"full-{row.edition}" / f"seed-{nearest.seed}"
        source = folder / RUN_WEIGHTS
        if not source.exists() or weights_hash(load_weights(source)) != nearest.weights.sha256:
            say(f"weights of {variant} are left as they are: those of seed {nearest.seed} are not in {source}")
            return False
        if source.stat().st_size > LARGEST_WEIGHTS:
            say(f"weights of {variant} stay unpublished: over {LARGEST_WEIGHTS / 1e6:g} MB")
            return False
        run = f"{nearest.paper}/{nearest.variant}/seed-{nearest.seed}"
        save_weights(load_weights(source), target, run, nearest.recipe)
        say(f"published {file}, the weights of seed {nearest.seed}")
    for record in finished:
        named = file if record is nearest else None
        if record.weights.file != named:
            weights = record.weights.model_copy(update={"file": named})
            write_record(record.model_copy(update={"weights": weights}), record.path())
    return new
