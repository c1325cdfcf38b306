"""`verify`: is everything that results/ says still so?"""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from common import layout
from common.errors import CheckFailed, DataAbsent, DataError, NumbersError, UsageError, UserError
from common.measure import measure_record, recorded_data, with_weights
from common.papers import Paper
from common.passports import LocatedData
from common.progress import say
from common.provenance import hash_of
from common.records import Record, published_records
from common.tables import tables

PASSED, WRONG, SKIPPED = "ok", "WRONG", "skipped"
Finding = tuple[str, str, str]  # state, what was checked, what was found


def verify_papers(papers: list[Paper], data_dir: Path | None, as_json: bool) -> None:
    """Check every paper, print what was found.

    Raises:
        CheckFailed: something is not so.
    """
    findings: list[Finding] = []
    checks = [
        (f"{paper.name}: {what}", partial(check, paper, data_dir))
        for paper in papers
        for what, check in (("records", _records), ("weights", _weights), ("determinism", _determinism))
    ]
    for what, check in [*checks, ("tables", _tables)]:
        for finding in _found(what, check):
            findings.append(finding)
            if not as_json:
                click.echo("  ".join((f"{finding[0]:8}", *finding[1:])))
    if as_json:
        click.echo(json.dumps([dict(zip(("state", "check", "found"), f, strict=True)) for f in findings], indent=1))
    wrong = [finding for finding in findings if finding[0] == WRONG]
    if wrong:
        raise CheckFailed(f"verify: {len(wrong)} of {len(findings)} checks found what is not so.")


def _found(what: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """A check's findings; one that comes to no end because of what it reads has found that."""
    try:
        return check()
    except (UsageError, DataError, NumbersError) as error:
        return [(WRONG, what, str(error))]


def _records(paper: Paper, data_dir: Path | None) -> list[Finding]:
    what = f"{paper.name}: records"
    records = published_records(paper.name)
    faults = [f"{record.path().relative_to(layout.ROOT)}: {fault}" for record in records for fault in _faults(record)]
    if not {record.variant for record in records} <= set(paper.variants):
        faults.append("some are of unknown variants")
    recipes = {(record.variant, record.data.edition): record.recipe_hash for record in records}
    if any(recipes[record.variant, record.data.edition] != record.recipe_hash for record in records):
        faults.append("seeds of one variant have different recipes")
    return [(WRONG, what, fault) for fault in faults] or [(PASSED, what, f"{len(records)} read, valid and consistent")]


def _faults(record: Record) -> list[str]:
    """What in a record contradicts itself: an edited number, an edited recipe."""
    faults = [] if hash_of(record.recipe) == record.recipe_hash else ["its recipe is not the one of its hash"]
    on_cpu = record.environment.device == record.environment.processor
    for protocol, values in (record.remeasured or {}).items() if on_cpu else ():
        for metric, value in values.items():
            if record.metrics.get(protocol, {}).get(metric, value) != value:
                faults.append(f"{metric} ({protocol}) was measured again as {value:g}")
    return faults


def _weights(paper: Paper, data_dir: Path | None) -> list[Finding]:
    findings = []
    for record in with_weights(paper):
        what = f"{paper.name}: {record.weights.file}"
        try:
            data = recorded_data(paper, record, data_dir)
            measured = measure_record(paper, record, data).metrics
        except DataAbsent as absent:
            findings.append((SKIPPED, what, str(absent)))
            continue
        except UserError as error:
            findings.append((WRONG, what, str(error)))
            continue
        same = measured == record.remeasured
        text = ", ".join(f"{name} {value:g}" for values in measured.values() for name, value in values.items())
        findings.append(
            (
                PASSED if same else WRONG,
                what,
                f"measures {text}, {'as recorded' if same else f'recorded {record.remeasured}'}",
            )
        )
    return findings


def _determinism(paper: Paper, data_dir: Path | None) -> list[Finding]:
    """The smoke run of the default variant, twice: the same bits?"""
    from common.run import Job, run_job

    variant = paper.default_variant
    recipe = paper.module("train").recipe(variant, "smoke", True)
    data = LocatedData(paper.variants[variant].dataset, layout.STANDIN, None, {})
    hashes = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            job = Job(paper, variant, "smoke", 0, recipe, False, data, "cpu", Path(folder), False, "verify")
            hashes.append(run_job(job)[0].weights.sha256)
    same = hashes[0] == hashes[1]
    return [
        (
            PASSED if same else WRONG,
            f"{paper.name}: determinism",
            f"two smoke runs {'end with the same bits' if same else 'differ'}",
        )
    ]


def _tables() -> list[Finding]:
    findings = []
    for path, content in tables().items():
        what = f"table {path.relative_to(layout.ROOT)}"
        same = path.exists() and path.read_text(encoding="utf-8") == content
        findings.append(
            (
                PASSED if same else WRONG,
                what,
                "as the records give it" if same else "differs; run `bash reproduce.sh table`",
            )
        )
        if not same:
            say(f"{what} differs from what the records give")
    return findings
