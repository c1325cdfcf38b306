"""`verify`: is everything that results/ says still true?"""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import click

from common.base import paths
from common.base.errors import CheckFailed, DataAbsent, MachineError, NumbersError, UsageError
from common.base.progress import say
from common.claims.papers import Paper
from common.data.find import real_data
from common.data.passports import LocatedData, locate, search_folders
from common.pages.figures import draw_figures, draw_overall
from common.pages.tables import tables
from common.publishing.checks import differences, paper_faults
from common.publishing.frozen import counting_records, frozen_faults
from common.publishing.history import NoHistory, by_commit, edit_faults, source_faults
from common.publishing.measure import measure_record, same_data, weights_faults, with_weights
from common.publishing.plausible import pinned
from common.publishing.released import measure_weights
from common.publishing.rerun import records_of, rerun
from common.training.records import FinishedRecord, published_records, published_released

PASSED, WRONG, SKIPPED = "ok", "WRONG", "skipped"
Finding = tuple[str, str, str]  # state, what was checked, what was found


def verify_papers(
    papers: list[Paper], data_dir: Path | None, as_json: bool, again: tuple[str, int] | None = None
) -> None:
    """Check every paper, print what was found.

    Args:
        again: a variant and a seed of the only paper, to be trained again too.

    Raises:
        CheckFailed: a check failed.
        UsageError: no such seed is published.
        DataError: the data is damaged, or `data_dir` is not there.
        UserError: what is to be trained again cannot be.
    """
    search_folders(data_dir)  # a mistyped folder says nothing about weights
    seed_again = records_of(papers[0], *again) if again else []
    findings: list[Finding] = []
    checks: list[tuple[str, Callable[[], list[Finding]]]]
    checks = [
        (f"{paper.name}: {what}", partial(check, paper, data_dir)) for paper in papers for what, check in CHECKS.items()
    ]
    checks += [("tables", _tables), ("figures", _overall)]
    for what, check in checks:
        for finding in _found(what, check):
            findings.append(finding)
            _show(finding, as_json)
    if seed_again:
        findings.append(_rerun(papers[0], seed_again, data_dir))
        _show(findings[-1], as_json)
    if as_json:
        click.echo(json.dumps([dict(zip(("state", "check", "found"), f, strict=True)) for f in findings], indent=1))
    wrong = [finding for finding in findings if finding[0] == WRONG]
    if wrong:
        raise CheckFailed(f"verify: {len(wrong)} of {len(findings)} checks failed.")


def _show(finding: Finding, as_json: bool) -> None:
    if not as_json:
        click.echo("  ".join((f"{finding[0]:8}", *finding[1:])))


def _found(what: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """A check's findings; one that cannot finish because of what it reads has found just that."""
    try:
        return check()
    except (UsageError, NumbersError) as error:
        return [(WRONG, what, str(error))]


def _records(paper: Paper, data_dir: Path | None) -> list[Finding]:
    what, faults = f"{paper.name}: records", paper_faults(paper)
    count = len(published_records(paper.name)) + len(published_released(paper.name))
    if count and not paper.why:
        faults.append("paper.yaml: why: is missing, though something was measured")
    read = f"{count} read, valid and consistent"
    return [(WRONG, what, fault) for fault in faults] or [(PASSED, what, read)]


def _sources(paper: Paper, data_dir: Path | None) -> list[Finding]:
    """Whether the records ran from the commits that they name."""
    findings = []
    for commit, records in by_commit(paper).items():
        what, ran = f"{paper.name}: sources of {commit[:7]}", f"those of {len(records)} records"
        findings += _by_history(what, partial(source_faults, paper, commit, records), ran)
    return findings


def _edits(paper: Paper, data_dir: Path | None) -> list[Finding]:
    """Whether the records are as they were committed."""
    as_committed = "no record contradicts what was committed before, and no seed has been left out since"
    return _by_history(f"{paper.name}: history", partial(edit_faults, paper), as_committed)


def _claims(paper: Paper, data_dir: Path | None) -> list[Finding]:
    """Whether what the claims are judged by was fixed before the runs."""
    ran = (
        f"none of {len(counting_records(paper))} records ran under seeds, printed numbers or margins other than today's"
    )
    since = f", which are those of {paper.frozen[:7]}" if paper.frozen else ""
    return _by_history(f"{paper.name}: claims", partial(frozen_faults, paper), ran + since)


def _by_history(what: str, faults_of: Callable[[], list[str]], passed: str) -> list[Finding]:
    """What a check finds that asks the git history; skipped where that cannot tell."""
    try:
        faults = faults_of()
    except NoHistory as why:
        return [(SKIPPED, what, str(why))]
    return [(WRONG, what, fault) for fault in faults] or [(PASSED, what, passed)]


def _weights(paper: Paper, data_dir: Path | None) -> list[Finding]:
    """
    Raises:
        DataError: the data is damaged, or `data_dir` is not there.
    """
    findings: list[Finding] = []
    by_dataset: dict[str, dict[str, FinishedRecord]] = {}
    for file, record in with_weights(paper).items():
        if faults := weights_faults(record, paths.ROOT / file):
            findings += [(WRONG, f"{paper.name}: {file}", fault) for fault in faults]
            continue
        by_dataset.setdefault(paper.passport(record.variant).name, {})[file] = record
    for dataset, records in by_dataset.items():
        try:
            data = real_data(paper.dataset(dataset), data_dir)
        except (DataAbsent, MachineError) as absent:
            findings += [(SKIPPED, f"{paper.name}: {file}", str(absent)) for file in records]
        else:
            findings += [_measured(paper, record, file, data) for file, record in records.items()]
    return findings


def _measured(paper: Paper, record: FinishedRecord, file: str, data: LocatedData) -> Finding:
    """Whether a record's weights still give what they gave when they were published."""
    what = f"{paper.name}: {file}"
    try:
        measured = measure_record(paper, record, same_data(record, data), paths.ROOT / file).metrics
    except DataAbsent as absent:
        return SKIPPED, what, str(absent)
    except (UsageError, NumbersError) as error:
        return WRONG, what, str(error)
    if found := differences(measured, record.metrics_of_file or {}):
        return WRONG, what, ", ".join(found)
    text = ", ".join(f"{name} {value:g}" for values in measured.values() for name, value in values.items())
    return PASSED, what, f"measures {text}, as recorded"


def _released(paper: Paper, data_dir: Path | None) -> list[Finding]:
    """Whether released weights still measure what they did, where their files are found here: nothing is fetched.

    Raises:
        DataError: a file is damaged, or `data_dir` is not there.
    """
    entries = {released.id: released for released in paper.released}
    findings = []
    for record in published_released(paper.name):
        if record.id not in entries:
            continue  # which the check of the records reports
        released, what = entries[record.id], f"{paper.name}: {record.weights.name} on {record.data.dataset}"
        try:
            weights = locate(paper.dataset(released.dataset), data_dir)
            data = same_data(record, locate(paper.dataset(record.data.dataset), data_dir))
            found = differences(measure_weights(paper, released, weights, data).metrics, record.metrics)
            as_recorded = f"measures {sum(map(len, record.metrics.values()))} numbers as recorded"
            findings.append((WRONG if found else PASSED, what, "; ".join(found) or as_recorded))
        except DataAbsent as absent:
            findings.append((SKIPPED, what, str(absent)))
        except (UsageError, NumbersError) as error:
            findings.append((WRONG, what, str(error)))
    return findings


def _determinism(paper: Paper, data_dir: Path | None) -> list[Finding]:
    """The training of the smoke run of the default variant, twice: the same bits?"""
    what = f"{paper.name}: determinism"
    if _smoke_bits(paper) == _smoke_bits(paper):
        return [(PASSED, what, "two smoke runs end with the same bits")]
    return [(WRONG, what, "two smoke runs differ")]


def _smoke_bits(paper: Paper) -> str:
    """The hash of the weights that the smoke run ends with; they are not measured."""
    from common.training.determinism import make_deterministic
    from common.training.provenance import code
    from common.training.run import Job, Run
    from common.training.weights import weights_hash

    variant, train = paper.default_variant, paper.module("train")
    recipe = train.recipe(variant, "smoke", True)
    data = LocatedData(paper.variants[variant].dataset, paths.STANDIN, None, {})
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            Job(paper.name, variant, "smoke", 0, recipe, False, data, "cpu", Path(folder), "verify", code(paper.name))
        )
        run.flags = make_deterministic(run.seed)
        with run.training():
            return weights_hash(train.train(run, recipe).weights)


def _tables() -> list[Finding]:
    findings = []
    for path, content in tables().items():
        what = f"table {path.relative_to(paths.ROOT)}"
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


def _figures(paper: Paper, data_dir: Path | None) -> list[Finding]:
    """Whether the paper's figures are what the records give, by today's figures.py."""
    known = paper.module("figures").FIGURES if paper.has_figures else {}
    drawn = draw_figures(paper, data_dir)
    there = set((paths.FIGURES / paper.name).glob("*"))
    return [
        _figure(path, drawn.get(path)) if path.stem in known else (WRONG, _named(path), "no figure is called that")
        for path in sorted(there | drawn.keys())
    ]


def _overall() -> list[Finding]:
    drawn = draw_overall()
    return [
        _figure(path, drawn[path]) if path in drawn else (WRONG, _named(path), "nothing that was measured gives it")
        for path in sorted({*paths.FIGURES.glob("*.png"), *drawn})
    ]


def _figure(path: Path, picture: bytes | None) -> Finding:
    what = _named(path)
    if picture is None:
        return SKIPPED, what, "what it is drawn from is not here"
    if path.exists() and path.read_bytes() == picture:
        return PASSED, what, "drawn again byte for byte"
    drawn_by = {package: version(package) for package in ("matplotlib", "pillow")}
    others = [f"{name} {here}, not {pinned(name)}" for name, here in drawn_by.items() if here != pinned(name)]
    if path.exists() and others:
        return SKIPPED, what, f"comes out with other bytes, but drawn by {' and '.join(others)}"
    return WRONG, what, "is not what the records give; run `bash reproduce.sh table`"


def _named(path: Path) -> str:
    return f"figure {path.relative_to(paths.ROOT).as_posix()}"


def _rerun(paper: Paper, records: list[FinishedRecord], data_dir: Path | None) -> Finding:
    stands, found = rerun(paper, records, data_dir)
    state = {True: PASSED, False: WRONG, None: SKIPPED}[stands]
    return state, f"{paper.name}: seed {records[0].seed} of {records[0].variant}", found


CHECKS = {
    "records": _records,
    "sources": _sources,
    "history": _edits,
    "claims": _claims,
    "weights": _weights,
    "released weights": _released,
    "figures": _figures,
    "determinism": _determinism,
}
