"""Weights that others released, measured by our evaluation: `eval --released` and `publish --released`."""

import dataclasses
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from torch import Tensor

from common.base import paths
from common.base.errors import CheckFailed, SomeFailed, UsageError
from common.base.metrics import METRICS
from common.base.progress import say
from common.base.terminal import print_table
from common.claims import verdict as v
from common.claims.papers import Paper, Released
from common.claims.rows import reported_as, with_unit
from common.data.find import available
from common.data.passports import LocatedData
from common.publishing.checks import released_faults
from common.publishing.measure import in_the_record, measure
from common.publishing.publish import say_what_is_new
from common.training import provenance
from common.training.evaluation import Measured
from common.training.records import ReleasedRecord, make_record, published_released, released_name, write_record
from common.training.weights import require_finite


def measure_released(paper: Paper, variant: str | None, data_dir: Path | None, device: str, as_json: bool) -> None:
    """Measure the released weights on each of their datasets that is available, beside the paper's numbers.

    Raises:
        UsageError: there are none. DataError: their files or all of their datasets are unavailable, or damaged.
    """
    results = []
    for released, weights, data in _measurable(paper, _entries(paper, variant), data_dir):
        measured = measure_weights(paper, released, weights, data, device)
        results.append({"released": released.id, "file": released.file, "dataset": data.dataset,
                        "edition": data.edition, **dataclasses.asdict(measured)})  # fmt: skip
        if not as_json:
            _print(paper, released, data, measured)
    if as_json:
        click.echo(json.dumps(results, indent=1))


def publish_released(paper: Paper, data_dir: Path | None) -> None:
    """Measure the released weights on the CPU and keep one record for each dataset; then rebuild the tables. What is
    published already stays as it is.

    Raises:
        UsageError, DataError: as `measure_released`.
        SomeFailed: some records are not what a published record must be.
    """
    from common.pages.tables import rebuild

    if why := provenance.why_not_committed(paper.name):
        raise UsageError(f"Nothing can be published from these sources: {why}.")
    code = provenance.code(paper.name)
    published = {record.name: record for record in published_released(paper.name)}
    refused = {}
    new = old = 0
    for released, weights, data in _measurable(paper, _entries(paper, None), data_dir):
        record = published.get(released_name(paper.name, released.id, data.dataset))
        record = record or _record(paper, released, weights, data, code)
        if faults := released_faults(paper, record):
            say(f"not published: {record.name} ({'; '.join(faults)})")
            refused[record.name] = CheckFailed(faults[0])
        elif record.name in published:
            old += 1
        else:
            new += 1
            write_record(record, record.path())
            say(f"published {record.path().relative_to(paths.ROOT)}")
    rebuild()
    if refused:
        raise SomeFailed(next(iter(refused.values())), f"Not published, see above: {', '.join(refused)}.")
    say_what_is_new(paper, new, old)


def measure_weights(
    paper: Paper, released: Released, weights: LocatedData, data: LocatedData, device: str = "cpu"
) -> Measured:
    """
    Args:
        weights: the dataset that holds the weights file.
        data: what they are measured on.
    """
    recipe = paper.module("train").recipe(released.variants[0], "full")
    return measure(paper, read_released(paper, released, weights, recipe), recipe, data, device)


def read_released(paper: Paper, released: Released, weights: LocatedData, recipe: Any) -> dict[str, Tensor]:
    """Released weights as the paper's `evaluate` takes them; the arguments are those of `measure_weights`.

    Raises:
        UsageError: the file is laid out in another way. NumbersError: NaN or infinity in it.
    """
    assert weights.folder is not None  # there is no stand-in for weights
    file = weights.folder / released.file
    state: dict[str, Tensor] = paper.module("released").read(file, recipe)
    require_finite(state, file)
    return state


def _record(paper: Paper, released: Released, weights: LocatedData, data: LocatedData, code: dict) -> ReleasedRecord:
    import torch

    from common.training.determinism import current_flags

    started = time.monotonic()
    measured = measure_weights(paper, released, weights, data)
    environment = provenance.environment("cpu", torch.get_num_threads(), "float32", None, current_flags())
    return make_record(
        ReleasedRecord,
        paper=paper.name,
        id=released.id,
        metrics=measured.metrics,
        details=measured.details,
        weights={"name": released.file, "sha256": weights.files[released.file]},
        data={"dataset": data.dataset, "edition": data.edition, "files": data.files},
        code=code,
        environment=environment.model_dump(),
        command=f"bash reproduce.sh publish {paper.name} --released",
        seconds=time.monotonic() - started,
    )


def _entries(paper: Paper, variant: str | None) -> list[Released]:
    """
    Raises:
        UsageError: there are none.
    """
    found = [released for released in paper.released if variant is None or variant in released.variants]
    if not found:
        raise UsageError(f"No released weights of {paper.name}{f' / {variant}' if variant else ''} are known.")
    return found


def _measurable(
    paper: Paper, entries: list[Released], data_dir: Path | None
) -> Iterable[tuple[Released, LocatedData, LocatedData]]:
    """Weights and each dataset that they can be measured on; what is unavailable is reported.

    Raises:
        DataAbsent: no weights are available with something to measure them on. DataError: the data is damaged.
    """
    tests = available([paper.dataset(name) for released in entries for name in released.tests], data_dir)
    pairs = [(released, test) for released in entries for test in released.tests if test in tests]
    weights = available([paper.dataset(released.dataset) for released, _ in pairs], data_dir)  # not fetched for nothing
    for released, test in pairs:
        if released.dataset in weights:
            yield released, weights[released.dataset], tests[test]


def _print(paper: Paper, released: Released, data: LocatedData, measured: Measured) -> None:
    name = released_name(paper.name, released.id, data.dataset)
    record = next((record for record in published_released(paper.name) if record.name == name), None)
    claims = {(c.protocol, c.metric): c for c in reversed(paper.claims) if c.variant in released.variants}
    lines = []
    for protocol, values in measured.metrics.items():
        for metric, value in values.items():
            claim = claims.get((protocol, metric))
            lines.append(
                [
                    METRICS[metric].label,
                    protocol,
                    reported_as(claim) if claim else "–",
                    with_unit(f"{value:.{METRICS[metric].decimals}f}", metric),
                    v.confirmation(value, claim.value, claim.tolerance) if claim else "–",
                    in_the_record(record, protocol, metric, value),
                ]
            )
    heading = f"{paper.name}: {released.file}, released by {released.by}, on {data.dataset} ({data.edition})"
    print_table(heading, ["metric", "protocol", "paper says", "measured now", "paper's number", "in the record"], lines)
