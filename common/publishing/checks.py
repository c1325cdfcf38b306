"""What a published record must be: `publish` takes in nothing else, `verify` sees whether it is still so."""

import math

from common.base import paths
from common.claims.papers import Paper
from common.training.provenance import hash_of, recipe_hash
from common.training.records import Record, published_records


def paper_faults(paper: Paper) -> list[str]:
    """All that is wrong with a paper's published records and weights, each with what it is wrong with.

    Raises:
        UsageError: a file is no record, or stands where it does not belong.
    """
    records = published_records(paper.name)
    of_records = [f"{r.path().relative_to(paths.ROOT)}: {fault}" for r in records for fault in record_faults(paper, r)]
    return [*of_records, *_missing_seeds(records), *_stray_weights(paper, records)]


def record_faults(paper: Paper, record: Record) -> list[str]:
    """What is wrong with one record that was measured again."""
    if why := why_not(paper, record):
        return [why]
    return [*run_faults(paper, record), *number_faults(record)]


def why_not(paper: Paper, record: Record) -> str:
    """What keeps a record from being the paper's, '' if nothing."""
    if record.paper != paper.name:
        return f"a record of {record.paper}"
    if record.variant not in paper.variants:
        return f"{paper.name} has no variant {record.variant!r}"
    if record.seed >= (seeds := paper.variants[record.variant].seeds):
        return f"seed {record.seed} is beyond the {seeds} that paper.yaml fixed"
    if record.standin:
        return "stand-in data"
    if not record.counts_for_paper:
        return "not the full recipe"
    if not (record.code.committed and record.code.commit):
        return "its sources were not committed"
    return ""


def run_faults(paper: Paper, record: Record) -> list[str]:
    """Where recipe and data are not those of the paper's files today."""
    faults = []
    if record.recipe_hash != hash_of(record.recipe):
        faults.append("its recipe is not the one of its hash")
    if hash_of(record.recipe) != recipe_hash(paper.module("train").recipe(record.variant, "full")):
        faults.append("made by another recipe than today's: run it again")
    passport, data = paper.passport(record.variant), record.data
    if data.dataset != passport.name:
        return [*faults, f"measured on {data.dataset}, and its variant is for {passport.name}"]
    if data.edition not in passport.editions:
        return [*faults, f"its edition {data.edition!r} is none of the passport of {passport.name}"]
    known = passport.editions[data.edition].files  # none where the passport cannot name them
    if known and known.keys() != data.files.keys():
        return [*faults, f"its data files are not those of {passport.name} ({data.edition})"]
    others = [name for name, file in known.items() if file.sha256 not in (None, data.files[name])]
    return [*faults, *(f"{name} was not the file that its passport names" for name in others)]


def number_faults(record: Record) -> list[str]:
    """Where the numbers of one record contradict each other."""
    if record.status == "failed":
        return []
    if not record.remeasured:
        return ["its weights were not measured again"]
    # Elsewhere than on a CPU a sum may be rounded in another way.
    on_cpu = record.environment.device == record.environment.processor
    return [*(_disagreements(record) if on_cpu else []), *_matrix_faults(record)]


def _disagreements(record: Record) -> list[str]:
    faults = []
    for protocol, values in record.remeasured.items():
        for metric, value in values.items():
            recorded = record.metrics.get(protocol, {}).get(metric, value)
            if recorded != value:
                faults.append(f"{metric} ({protocol}) is {recorded}, and was measured again as {value}")
    return faults


def _matrix_faults(record: Record) -> list[str]:
    """eval.py hands over confusion matrix and metrics together: where it measures a single protocol, both are of it."""
    matrix = record.details.get("confusion_matrix")
    if matrix is None or len(record.remeasured) != 1:
        return []
    try:
        right = 100 * sum(row[k] for k, row in enumerate(matrix)) / sum(map(sum, matrix))
    except (TypeError, LookupError, ZeroDivisionError):
        return ["its confusion matrix has no count for each pair of classes"]
    (protocol,) = record.remeasured
    given = {"oa": right, "test_error": 100 - right, "top1_error": 100 - right}
    return [
        f"{metric} ({protocol}) is {value}, and its confusion matrix gives {given[metric]}"
        for metric, value in record.metrics.get(protocol, {}).items()
        if metric in given and not math.isclose(value, given[metric], abs_tol=1e-9)
    ]


def _missing_seeds(records: list[Record]) -> list[str]:
    groups: dict[tuple[str, str], list[int]] = {}
    for record in records:
        groups.setdefault((record.variant, record.data.edition), []).append(record.seed)
    return [
        f"{variant} ({edition}): seeds {', '.join(map(str, seeds))} leave one out"
        for (variant, edition), seeds in groups.items()
        if seeds != list(range(len(seeds)))
    ]


def _stray_weights(paper: Paper, records: list[Record]) -> list[str]:
    """Every published file of weights is that of one record, and every one that a record names is there."""
    named = [record.weights.file for record in records if record.weights and record.weights.file]
    files = (paths.WEIGHTS / paper.name).rglob("*.safetensors")
    there = {str(file.relative_to(paths.ROOT)) for file in files}
    wrong = [file for file in sorted({*named, *there}) if file not in there or named.count(file) != 1]
    return [f"{file}: {'is not there' if file not in there else 'is not that of one record'}" for file in wrong]
