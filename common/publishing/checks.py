"""What a published record must be: `publish` accepts nothing else, `verify` checks that it still holds."""

import math
from collections import Counter
from collections.abc import Hashable

from common.base import paths
from common.claims.papers import Paper
from common.data.passports import Passport, folder_digest
from common.publishing.plausible import environment_faults, on_cpu
from common.training.provenance import hash_of, recipe_hash
from common.training.records import (
    Code,
    FailedRecord,
    FilesUsed,
    FinishedRecord,
    Metrics,
    Record,
    ReleasedRecord,
    published_records,
    published_released,
)

OTHER_PROCESSOR = 1e-5  # the largest relative difference where sums are rounded in another way


def paper_faults(paper: Paper) -> list[str]:
    """All that is wrong with a paper's published records and weights, each with its file or variant.

    Raises:
        UsageError: a file is not a record, or is where it does not belong.
    """
    records = published_records(paper.name)
    faults: list[tuple[Record | ReleasedRecord, str]]
    faults = [(record, fault) for record in records for fault in record_faults(paper, record)]
    faults += [(record, fault) for record in published_released(paper.name) for fault in released_faults(paper, record)]
    of_records = [f"{place(record)}: {fault}" for record, fault in faults]
    return [*of_records, *missing_seeds(records), *_copies(records), *_stray_weights(paper, records)]


def place(record: Record | ReleasedRecord) -> str:
    """A record's file, as messages name it."""
    return record.path().relative_to(paths.ROOT).as_posix()


def record_faults(paper: Paper, record: Record) -> list[str]:
    """What is wrong with one record that was measured again."""
    if why := why_not(paper, record):
        return [why]
    return [*run_faults(paper, record), *number_faults(paper, record)]


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
    return _uncommitted(record.code)


def _uncommitted(code: Code) -> str:
    if not code.commit:
        return "its commit is unknown: git did not tell when it was made"
    return "" if code.committed else f"its sources were changed from those of commit {code.short_commit}"


def released_faults(paper: Paper, record: ReleasedRecord) -> list[str]:
    """What is wrong with one record of released weights."""
    released = next((released for released in paper.released if released.id == record.id), None)
    if record.paper != paper.name or released is None:
        return [f"{paper.name} knows no released weights {record.id!r}"]
    if record.data.dataset not in released.tests:
        return [f"measured on {record.data.dataset}, which paper.yaml does not name for {record.id}"]
    faults = list(filter(None, [_uncommitted(record.code)]))
    editions = paper.dataset(released.dataset).editions.values()
    known = [edition.files[released.file] for edition in editions if released.file in edition.files]
    # Where nobody knows a checksum, what was found is what the record has.
    fits = any(file.has(record.weights.sha256) or not (file.sha256 or file.sha256_begins) for file in known)
    if record.weights.name != released.file or not fits:
        faults.append(f"its weights are not the {released.file} that the passport of {released.dataset} names")
    faults += environment_faults(paper, record.environment, {"precision": "float32"})
    return faults + _data_faults(paper.dataset(record.data.dataset), record.data)


def same(value: float, other: float) -> bool:
    """Equal, except for what another processor, or another number of threads, may add up in another order."""
    return math.isclose(value, other, rel_tol=OTHER_PROCESSOR)


def differences(measured: Metrics, recorded: Metrics) -> list[str]:
    """Where a measurement and the recorded one disagree."""
    now, then = (
        {(metric, protocol): value for protocol, values in metrics.items() for metric, value in values.items()}
        for metrics in (measured, recorded)
    )
    return [
        f"{metric} ({protocol}) is {now.get((metric, protocol))}, recorded {then.get((metric, protocol))}"
        for metric, protocol in now | then
        if not same(now.get((metric, protocol), math.nan), then.get((metric, protocol), math.nan))
    ]


def run_faults(paper: Paper, record: Record) -> list[str]:
    """Where recipe and data are not those of the paper's files today, or the environment cannot be."""
    faults = [*environment_faults(paper, record.environment, record.recipe)]
    if record.recipe_hash != hash_of(record.recipe):
        faults.append("its recipe does not match its hash")
    if hash_of(record.recipe) != recipe_hash(paper.module("train").recipe(record.variant, "full")):
        faults.append("made with a recipe other than today's: run it again")
    measured = record.metrics if isinstance(record, FinishedRecord) else {}
    faults += [f"metrics.{protocol}: is not a protocol of paper.yaml" for protocol in measured.keys() - paper.protocols]
    passport = paper.passport(record.variant)
    if record.data.dataset != passport.name:
        return [*faults, f"measured on {record.data.dataset}, but its variant is for {passport.name}"]
    return faults + _data_faults(passport, record.data)


def _data_faults(passport: Passport, data: FilesUsed) -> list[str]:
    if data.edition not in passport.editions:
        return [f"its edition {data.edition!r} is not in the passport of {passport.name}"]
    edition = passport.editions[data.edition]
    known = edition.files  # none where the passport cannot name them
    digest = edition.digest and folder_digest(data.files)  # of them all
    if digest != edition.digest or (known and known.keys() != data.files.keys()):
        return [f"its data files are not those of {passport.name} ({data.edition})"]
    checked = {name: file for name, file in known.items() if file.sha256 or file.sha256_begins}
    others = [name for name, file in checked.items() if not file.has(data.files[name])]
    return [f"{name} was not the file that its passport names" for name in others]


def number_faults(paper: Paper, record: Record) -> list[str]:
    """Where the numbers of one record contradict each other."""
    if isinstance(record, FailedRecord):
        return []
    faults = _curve_faults(paper, record)
    if not record.remeasured:
        return [*faults, "its weights were not measured again"]
    # On anything but a CPU a sum may be rounded in another way.
    faults += _disagreements(record, record.remeasured) if on_cpu(record.environment) else []
    return [*faults, *_matrix_faults(record, record.remeasured)]


def _curve_faults(paper: Paper, record: FinishedRecord) -> list[str]:
    """Where a number is not the point of a curve that it was taken from, as the paper's train.py says. One that eval.py
    measured once more, in its own arithmetic, may be off by an example."""
    train = paper.module("train")
    if not hasattr(train, "metrics_of_curves"):
        return []
    try:
        points: Metrics = train.metrics_of_curves(record.curves, train.recipe(record.variant, "full"))
    except (LookupError, ValueError):
        return ["its curves lack a point that a number of it is taken from"]
    faults = []
    for protocol, values in points.items():
        for metric, point in values.items():
            recorded = record.metrics.get(protocol, {}).get(metric, math.nan)
            off = paper.count(record.variant, metric) if protocol in (record.remeasured or {}) else 0.0
            if not abs(recorded - point) <= off + 1e-9:
                faults.append(f"{metric} ({protocol}) is {recorded}, but its curve has {point}")
    return faults


def _disagreements(record: FinishedRecord, remeasured: Metrics) -> list[str]:
    faults = []
    for protocol, values in remeasured.items():
        for metric, value in values.items():
            recorded = record.metrics.get(protocol, {}).get(metric, value)
            if not same(recorded, value):
                faults.append(f"{metric} ({protocol}) is {recorded}, but was measured again as {value}")
    return faults


def _matrix_faults(record: FinishedRecord, remeasured: Metrics) -> list[str]:
    """eval.py hands over confusion matrix and metrics together: where it measures a single protocol, both are of it;
    and so is the list of what was misclassified: which example, its class, what it was taken for."""
    matrix = record.details.get("confusion_matrix")
    if matrix is None or len(remeasured) != 1:
        return []
    try:
        right = 100 * sum(row[k] for k, row in enumerate(matrix)) / sum(map(sum, matrix))
        confused = Counter({(i, k): row[k] for i, row in enumerate(matrix) for k in range(len(matrix)) if i != k})
        listed = Counter((of, taken_for) for _, of, taken_for in record.details.get("misclassified", []))
    except (TypeError, ValueError, LookupError, ZeroDivisionError):
        return ["its confusion matrix has no count for each pair of classes"]
    (protocol,) = remeasured
    given = {"oa": right, "test_error": 100 - right, "top1_error": 100 - right}
    faults = [
        f"{metric} ({protocol}) is {value}, but its confusion matrix gives {given[metric]}"
        for metric, value in record.metrics.get(protocol, {}).items()
        if metric in given and not math.isclose(value, given[metric], abs_tol=1e-9)
    ]
    if "misclassified" in record.details and listed != confused:
        faults.append("its list of what was misclassified is not that of its confusion matrix")
    return faults


def missing_seeds(records: list[Record]) -> list[str]:
    """Groups of seeds with a gap; a published number has none."""
    groups: dict[tuple[str, str], list[int]] = {}
    for record in records:
        groups.setdefault((record.variant, record.data.edition), []).append(record.seed)
    return [
        f"{variant} ({edition}): seeds {', '.join(map(str, seeds))} leave one out"
        for (variant, edition), seeds in groups.items()
        if seeds != list(range(len(seeds)))
    ]


def _copies(records: list[Record]) -> list[str]:
    """Records that share what no two runs can: the final weights, the curves, or how long it took to the last digit.
    Only the same seed of the same variant, on another edition with the same content, ends with the same weights."""
    first: dict[tuple[str, Hashable], FinishedRecord] = {}
    faults = []
    for record in records:
        if isinstance(record, FinishedRecord):
            curves = tuple(sorted((name, tuple(curve)) for name, curve in record.curves.items()))
            unique = {"weights": record.weights.sha256, "curves": curves, "times": record.times.model_dump_json()}
            for what, content in unique.items():
                other = first.setdefault((what, content), record)
                if content and (other.variant, other.seed) != (record.variant, record.seed):
                    faults.append(f"{place(record)}: has the {what} of {place(other)}")
    return faults


def _stray_weights(paper: Paper, records: list[Record]) -> list[str]:
    """What breaks this rule: each published weights file belongs to one record, whose variant it is called after, and
    each that a record names exists; rounded ones are of the variant that paper.yaml names."""
    pairs = [(record, record.weights.file) for record in records if record.weights and record.weights.file]
    named = [file for _, file in pairs]
    files = (paths.WEIGHTS / paper.name).rglob("*.safetensors")
    there = {file.relative_to(paths.ROOT).as_posix() for file in files}
    missing = [f"{file}: is not there" for file in sorted({*named} - there)]
    shared = [f"{file}: does not belong to exactly one record" for file in sorted(there) if named.count(file) != 1]
    misnamed = [f"{place(of)}: {file} is not called {of.variant}" for of, file in pairs if _misnamed(of, file)]
    rounded = {place(of): of.variant for of, _ in pairs if of.weights.float16}
    unnamed = [f"{of}: weights_of does not name {name}" for of, name in rounded.items() if name != paper.weights_of]
    return [*missing, *shared, *misnamed, *unnamed]


def _misnamed(record: Record, file: str) -> bool:
    return paths.ROOT / file != paths.WEIGHTS / record.paper / f"{record.variant}.safetensors"
