"""`eval`: measure weights on the real test data."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from torch import Tensor

from common.base import paths
from common.base.errors import DataAbsent, NumbersError, UsageError
from common.base.metrics import METRICS
from common.base.progress import say
from common.base.terminal import print_table
from common.claims.papers import Paper
from common.claims.rows import about_rounded, with_unit
from common.data.find import available, real_data
from common.data.passports import LocatedData, file_sha256
from common.publishing.checks import same
from common.training.evaluation import Measured
from common.training.recipes import as_text, plain
from common.training.records import FinishedRecord, Record, ReleasedRecord, published_records
from common.training.weights import (
    load_weights,
    named_before_rounding,
    named_recipe,
    named_run,
    trained_as,
    weights_hash,
)

WIDEST_MATRIX = 10  # classes; one with more does not fit a terminal


def measure_files(
    paper: Paper, variant: str | None, files: list[Path], data_dir: Path | None, device: str, as_json: bool
) -> None:
    """Measure weights that the user names, each under `recipe_of` its variant."""
    weights = {file: load_weights(file) for file in files}
    variants = {file: variant_of(paper, variant, file) for file in files}
    data = {name: real_data(paper.passport(name), data_dir) for name in dict.fromkeys(variants.values())}
    results = []
    for file, name in variants.items():
        if name != paper.variant(variant):
            say(f"{file} is measured as {name}, which it says it is.")
        if named_before_rounding(file):
            say(f"{file} holds weights rounded to float16.")
        recipe, full = recipe_of(paper, name, file), paper.module("train").recipe(name, "full")
        if recipe != full:
            say(f"{file} is measured under the recipe that it was trained with: {_differences(recipe, full)}.")
        results.append((str(file), measure(paper, weights[file], recipe, data[name], device)))
    _print(paper, results, {}, as_json)


def variant_of(paper: Paper, wanted: str | None, file: Path) -> str:
    """Whose recipe a weights file is for: the variant wanted, else the one that the file names, else the default one.

    Raises:
        UsageError: the file says that it is another paper's or another variant's.
    """
    of_paper, of_variant = trained_as(file) or (paper.name, paper.variant(wanted))
    if wanted is None and of_paper == paper.name and of_variant in paper.variants:
        return of_variant
    variant = paper.variant(wanted)
    if (of_paper, of_variant) != (paper.name, variant):
        whose = f"{of_paper} / {of_variant}, not of {paper.name} / {variant}"
        advice = f"Measure them with `eval {of_paper} --variant {of_variant}`."
        raise UsageError(f"{file} holds weights of {whose}. {advice}")
    return variant


def recipe_of(paper: Paper, variant: str, file: Path) -> Any:
    """The recipe that a weights file says it was trained with, else the variant's full one.

    Raises:
        UsageError: what it says is not a recipe of this paper, as it is today.
    """
    full = paper.module("train").recipe(variant, "full")
    said = named_recipe(file)
    return full if said is None else _as_recipe(type(full), said, f"{file} was trained")


def _as_recipe(recipe: type, content: dict[str, Any], whose: str) -> Any:
    unknown = content.keys() - {field.name for field in dataclasses.fields(recipe)}
    try:
        if not unknown:
            return recipe(**content)
        why = f"{', '.join(sorted(unknown))}: not a field"
    except ValidationError as error:
        why = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
    raise UsageError(f"{whose} with a different form of recipe ({why}).")


def _differences(recipe: Any, full: Any) -> str:
    """'passes 4, not 20; equation eq8, not eq9'"""
    ours, theirs = plain(recipe), plain(full)
    pairs = [(name, as_text(ours[name]), as_text(theirs[name])) for name in ours if ours[name] != theirs[name]]
    return "; ".join(f"{name} {own}, not {other}" for name, own, other in pairs)


def measure_published(paper: Paper, variant: str | None, data_dir: Path | None, device: str, as_json: bool) -> None:
    """Measure the published weights and set them beside their records' numbers. Weights whose data cannot be had are
    left out, and that is said.

    Raises:
        UsageError: none are published. DataAbsent: none can be measured. DataError: the data is damaged.
    """
    published = {file: r for file, r in with_weights(paper).items() if variant in (None, r.variant)}
    if not published:
        raise UsageError(
            f"No weights of {paper.name}{f' / {variant}' if variant else ''} are published. Name a file with --weights."
        )
    here = available([paper.passport(record.variant) for record in published.values()], data_dir)
    results = []
    for file, record in published.items():
        if data := here.get(paper.passport(record.variant).name):
            try:
                same_data(record, data)
            except DataAbsent as other:
                say(f"left out: {other}")
                continue
            results.append((file, measure_record(paper, record, data, paths.ROOT / file, device)))
    if not results:
        raise DataAbsent(f"No published weights of {paper.name} can be measured on what is here.")
    _print(paper, results, published, as_json)
    for note in about_rounded(published.values()):
        say(note)


def with_weights(paper: Paper) -> dict[str, FinishedRecord]:
    """The published records whose weights are published too, by weights file."""
    finished = [record for record in published_records(paper.name) if isinstance(record, FinishedRecord)]
    return {record.weights.file: record for record in finished if record.weights.file}


def weights_faults(record: FinishedRecord, file: Path) -> list[str]:
    """Where a file is not the weights of a record."""
    try:
        found, said = holds(file, record), named_run(file)
    except (UsageError, NumbersError) as error:
        return [str(error)]
    faults = [] if found else [f"holds weights other than those of {record.run}"]
    if said not in (None, record.run):  # the oldest files do not say
        faults.append(f"says that it is of {said}, but it is published as {record.run}")
    return faults


def holds(file: Path, record: FinishedRecord) -> bool:
    """Whether a file has the weights of a record: the very bits, or those of its published float16.

    Raises:
        UsageError, NumbersError: as `load_weights` says.
    """
    weights, before = load_weights(file), named_before_rounding(file)
    if before is None:
        return weights_hash(weights) == record.weights.sha256
    rounded = record.weights.float16
    return rounded is not None and (before, file_sha256(file)) == (record.weights.sha256, rounded.sha256)


def measure_record(
    paper: Paper, record: FinishedRecord, data: LocatedData, file: Path, device: str = "cpu"
) -> Measured:
    """Measure the weights in a file, after checking that they are the record's.

    Raises:
        UsageError: as `record_weights` says.
    """
    return measure(paper, record_weights(record, file), recorded_recipe(paper, record), data, device)


def record_weights(record: FinishedRecord, file: Path) -> dict[str, Tensor]:
    """The weights in a file, after checking that they are a record's.

    Raises:
        UsageError: they are others.
    """
    if not holds(file, record):
        raise UsageError(f"{file} does not hold the weights that its record names.")
    return load_weights(file)


def recorded_recipe(paper: Paper, record: Record) -> Any:
    """The record's recipe as the dataclass of its variant.

    Raises:
        UsageError: the paper's recipe has changed its fields since.
    """
    full = paper.module("train").recipe(record.variant, "full")
    return _as_recipe(type(full), record.recipe, f"seed {record.seed} of {record.variant} was recorded")


def recorded_data(paper: Paper, record: Record, data_dir: Path | None) -> LocatedData:
    """The real data that a record was measured on.

    Raises:
        DataAbsent: there is only another edition of it.
        DataError: it is unavailable, or damaged.
    """
    return same_data(record, real_data(paper.passport(record.variant), data_dir))


def same_data(record: Record | ReleasedRecord, data: LocatedData) -> LocatedData:
    """The data, after checking that it is what a record was measured on.

    Raises:
        DataAbsent: it is another edition.
    """
    if data.files != record.data.files:
        there, wanted = f"{data.dataset} ({data.edition}) is in {data.folder}", record.data.edition
        raise DataAbsent(f"{there}; {record.name} was measured on different files ({wanted}).")
    return data


def measure(paper: Paper, weights: dict, recipe: Any, data: LocatedData, device: str) -> Measured:
    """By the paper's own evaluation, in float32."""
    from common.training.determinism import make_deterministic
    from common.training.device import choose_device

    make_deterministic(0)
    usable = paper.module("train").DEVICES
    return paper.module("eval").evaluate(weights, recipe, data, choose_device(device, paper.name, usable))


def _print(
    paper: Paper, results: list[tuple[str, Measured]], records: dict[str, FinishedRecord], as_json: bool
) -> None:
    if as_json:
        click.echo(
            json.dumps([{"weights": name, **dataclasses.asdict(measured)} for name, measured in results], indent=1)
        )
        return
    for name, measured in results:
        lines = []
        for protocol, values in measured.metrics.items():
            for metric, value in values.items():
                lines.append(
                    [
                        METRICS[metric].label,
                        protocol,
                        with_unit(f"{value:.{METRICS[metric].decimals}f}", metric),
                        in_the_record(records.get(name), protocol, metric, value),
                    ]
                )
        print_table(f"{paper.name}: {name}", ["metric", "protocol", "measured now", "in the record"], lines)
        if matrix := measured.details.get("confusion_matrix"):
            _print_classes(matrix, measured.details.get("classes", [str(label) for label in range(len(matrix))]))


def _print_classes(matrix: list[list[int]], names: list[str]) -> None:
    """How often each class is right and what it is taken for, from a confusion matrix with a row for each."""
    lines = []
    for index, (name, row) in enumerate(zip(names, matrix, strict=True)):
        wrong = [(count, names[other]) for other, count in enumerate(row) if other != index]
        most, mistaken = max(wrong, key=lambda pair: pair[0])
        right = f"{100 * row[index] / sum(row):.1f} %" if sum(row) else "not scored"
        lines.append([name, f"{sum(row):,}", right, f"{mistaken} ({most:,})" if most else "–"])
    print_table("Class by class", ["class", "examples", "right", "most often mistaken for"], lines)
    if len(names) <= WIDEST_MATRIX:
        rows = [[name, *map(str, row)] for name, row in zip(names, matrix, strict=True)]
        print_table("Confusion matrix", ["true \\ taken for", *names], rows)


def in_the_record(record: FinishedRecord | ReleasedRecord | None, protocol: str, metric: str, value: float) -> str:
    """What a record has for a value that was measured just now: '9.43 (seed 0, the same)', '–' where it has none."""
    rounded = record.weights.float16 if isinstance(record, FinishedRecord) else None
    metrics = rounded.metrics if rounded else record.metrics if record else {}
    recorded = metrics.get(protocol, {}).get(metric)
    if record is None or recorded is None:
        return "–"
    if isinstance(record, FinishedRecord):
        whose = f"seed {record.seed}{' in float16' if rounded else ''}, "
    else:
        whose = ""
    return f"{recorded:.{METRICS[metric].decimals}f} ({whose}{'the same' if same(recorded, value) else 'DIFFERENT'})"
