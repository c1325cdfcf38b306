"""Rows of the comparison: every claim, and every measured value that no claim speaks of."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.base import paths
from common.base.duration import duration
from common.base.metrics import METRICS
from common.claims import verdict as v
from common.claims.examples import error_interval
from common.claims.papers import Claim, Paper
from common.training.records import Record, ReleasedRecord

UNVERIFIED = "unverified"  # nobody could check the printed number against the paper
NUMBERS = tuple(v.Summary.__dataclass_fields__)


@dataclass(frozen=True)
class Row:
    """One line of results/comparison.json. Numbers are in the metric's unit, and None where there is nothing to take
    them from: the mean and its 90 % interval (low, high), the 95 % prediction interval of one more run (next_low,
    next_high), the mean less the printed number and its interval, and the 90 % bootstrap interval of the mean over the
    test examples (examples_low, examples_high), where the records keep which were missed. `claim` is the one that the
    row settles; a row that is measured on other data than the paper's settles none and has the printed number all the
    same. Metric and protocol are None where every seed failed and no claim says what was to be measured. What released
    weights measure of the claim stands apart from all that was trained here: it has its own verdict and record."""

    paper: str
    claim: str | None
    variant: str
    dataset: str
    edition: str | None
    metric: str | None
    protocol: str | None
    reported: str | None
    tolerance: float | None
    mean: float | None
    sd: float | None
    n: int
    low: float | None
    high: float | None
    next_low: float | None
    next_high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    examples_low: float | None
    examples_high: float | None
    verdict: str
    records: list[str]
    note: str
    released: float | None = None
    released_verdict: str | None = None
    released_record: str | None = None

    def as_dict(self) -> dict:
        """What is reported as a number, and as it is printed: the digits of "9.90" say more than 9.9."""
        value = None if self.reported is None else float(self.reported)
        return dataclasses.asdict(self) | {"reported": value, "reported_text": self.reported}


def paper_rows(paper: Paper, records: list[Record], released: Sequence[ReleasedRecord] = ()) -> list[Row]:
    """Rows in the order of every table: variants as in paper.yaml, a variant's claims before what no
    claim speaks of, editions as in the passport, metrics as in METRICS, protocols as in paper.yaml.

    Args:
        records: of this paper only, failed ones too.
        released: of this paper's released weights.
    """
    rows = []
    for variant in paper.variants:
        of_variant = [record for record in records if record.variant == variant]
        rows += sorted(_variant_rows(paper, variant, of_variant), key=_order(paper, variant))
    claims = {claim.id: claim for claim in paper.claims}
    return [
        dataclasses.replace(row, **_released(paper, claims[row.claim], released)) if row.claim else row for row in rows
    ]


def _released(paper: Paper, claim: Claim, records: Sequence[ReleasedRecord]) -> dict:
    """What released weights measure of a claim: those that stand first in paper.yaml, on data that counts."""
    for released in paper.released:
        for record in records:
            value = record.metrics.get(claim.protocol, {}).get(claim.metric)
            of_claim = released.id == record.id and claim.variant in released.variants
            if of_claim and value is not None and paper.dataset(record.data.dataset).counts(record.data.edition):
                word = v.confirmation(value, claim.value, claim.tolerance)
                return {"released": value, "released_verdict": word, "released_record": record.name}
    return {}


def _order(paper: Paper, variant: str) -> Callable[[Row], tuple]:
    editions, metrics, protocols = list(paper.passport(variant).editions), list(METRICS), list(paper.protocols)

    def place(word: str | None, known: list[str]) -> tuple[int, str]:
        return (known.index(word), "") if word in known else (len(known), word or "")

    def key(row: Row) -> tuple:
        by_name = place(row.edition, editions), place(row.metric, metrics), place(row.protocol, protocols)
        return row.claim is None, *by_name

    return key


def _variant_rows(paper: Paper, variant: str, records: list[Record]) -> list[Row]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.data.edition, []).append(record)
    counted = [edition for edition in groups if paper.passport(variant).counts(edition)]
    rows = [
        _row(paper, claim, variant, edition, claim.protocol, claim.metric, groups.get(edition, []))
        for claim in paper.claims
        if claim.variant == variant
        for edition in counted or [None]
    ]
    spoken_for = {(row.edition, row.protocol, row.metric) for row in rows}
    for edition, group in groups.items():
        for protocol, metric in _measured(group):
            if (edition, protocol, metric) not in spoken_for:
                rows.append(_row(paper, None, variant, edition, protocol, metric, group))
        if all(row.edition != edition for row in rows):  # every seed failed, and a failure must be seen
            rows.append(_row(paper, None, variant, edition, None, None, group))
    return rows


def _measured(group: list[Record]) -> set[tuple[str, str]]:
    return {(protocol, metric) for record in group for protocol, values in record.metrics.items() for metric in values}


def _row(
    paper: Paper,
    claim: Claim | None,
    variant: str,
    edition: str | None,
    protocol: str | None,
    metric: str | None,
    group: list[Record],
) -> Row:
    """The row that settles `claim`, or with None one that settles nothing."""
    finished = [
        record for record in group if record.status == "finished" and metric in record.metrics.get(protocol, {})
    ]
    summary = None
    if finished:
        values = [record.metrics[protocol][metric] for record in finished]
        summary = v.summarise(values, paper.count(variant, metric), METRICS[metric].range)
    subject = variant, protocol, metric
    same = [c for c in paper.claims if (c.variant, c.protocol, c.metric) == subject and edition != paths.STANDIN]
    printed = claim or next(iter(same), None)
    word, note = _judge(paper, claim, printed, metric, group, finished, summary)
    numbers = dataclasses.asdict(summary) if summary else dict.fromkeys(NUMBERS) | {"n": 0}
    return Row(
        paper=paper.name,
        claim=claim.id if claim else None,
        variant=variant,
        dataset=paper.variants[variant].dataset,
        edition=edition,
        metric=metric,
        protocol=protocol,
        reported=printed.reported if printed else None,
        tolerance=claim.tolerance if claim else None,
        verdict=word,
        records=[record.name for record in group],
        note=note,
        **numbers,
        **_differences(summary, printed),
        **_over_examples(paper, variant, protocol, metric, finished),
    )


def _differences(summary: v.Summary | None, printed: Claim | None) -> dict[str, float | None]:
    """The mean and the ends of its interval, less the printed number."""

    def less(value: float | None) -> float | None:
        return value - printed.value if printed and value is not None else None

    ends = (summary.mean, summary.low, summary.high) if summary else (None,) * 3
    return dict(zip(("difference", "difference_low", "difference_high"), map(less, ends), strict=True))


def _over_examples(
    paper: Paper, variant: str, protocol: str | None, metric: str | None, finished: list[Record]
) -> dict[str, float | None]:
    """The bootstrap interval over test examples, where every record has the list of those that it counts as errors:
    `details.misclassified`, each entry beginning with the number of the example."""
    fields = "examples_low", "examples_high"
    examples = paper.examples(variant, metric) if metric == "test_error" else None
    if not (finished and examples):
        return dict.fromkeys(fields)
    mistakes = [{entry[0] for entry in record.details.get("misclassified", [])} for record in finished]
    errors = [record.metrics[protocol][metric] for record in finished]
    if any(round(error * examples / 100) != len(of) for error, of in zip(errors, mistakes, strict=True)):
        return dict.fromkeys(fields)  # the list is none, or that of another protocol
    return dict(zip(fields, error_interval(mistakes, examples), strict=True))


def _judge(
    paper: Paper,
    claim: Claim | None,
    printed: Claim | None,
    metric: str | None,
    group: list[Record],
    finished: list[Record],
    summary: v.Summary | None,
) -> tuple[str, str]:
    """The verdict and what must be said beside it."""
    notes = [UNVERIFIED] if printed and printed.unverified else []
    failed = [record for record in group if record.status == "failed"]
    present = {record.seed for record in finished + failed}
    last = max((record.seed for record in group), default=-1)
    # A gap shows among the first numbers; a seed such as 10^9 must not make a list as long.
    missing = [seed for seed in range(min(last, len(present)) + 1) if seed not in present]
    notes += [f"seed {record.seed} failed: {record.failure}" for record in failed]
    if missing:
        notes.append(f"seed {', '.join(map(str, missing))} missing")
    if not group:
        return v.NOT_ATTEMPTED, "; ".join([*notes, f"needs {needs(paper, [claim])}"])
    if not finished:
        word = v.FAILED if failed else v.NOT_ATTEMPTED
    elif claim is None:
        word = v.OTHER_DATA if printed else v.NO_PUBLISHED_NUMBER
    else:
        seeds = paper.variants[claim.variant].seeds
        word = v.verdict(summary, claim.value, claim.tolerance, METRICS[metric].higher_is_better, seeds)
        if (failed or missing) and word != v.TOO_FEW_SEEDS:
            word = v.INCONCLUSIVE  # no seed may be left out
    return word, "; ".join(notes)


def needs(paper: Paper, claims: list[Claim]) -> str:
    """What a run takes that could settle these claims of one variant: time a seed, device, data."""
    passport = paper.passport(claims[0].variant)
    counting = [edition for edition in passport.editions if passport.counts(edition)]
    if not counting:
        return f"files of {passport.name} that are shown to be the paper's: none is known"
    runs = dict.fromkeys(f"{duration(3600 * claim.needs.hours)} on a {claim.needs.device.upper()}" for claim in claims)
    return f"about {' or '.join(runs)} a seed, {passport.name} ({' or '.join(counting)})"


def can_be_settled(paper: Paper, variant: str) -> bool:
    """Whether some edition of the variant's data counts for the paper's claims."""
    passport = paper.passport(variant)
    return any(passport.counts(edition) for edition in passport.editions)


def label(row: Row) -> str:
    """The metric as the tables name it."""
    return METRICS[row.metric].label if row.metric else "–"


def with_unit(value: str, metric: str) -> str:
    return f"{value} {METRICS[metric].unit}".strip()


def reported_as(of: Row | Claim) -> str:
    """The printed value and, where it counts, its margin as the tables print them, '–' where there is none."""
    if of.reported is None:
        return "–"
    margin = f" ± {of.tolerance:g}" if of.tolerance is not None else ""
    return with_unit(of.reported + margin, of.metric)


def measured(row: Row) -> str:
    """Mean, standard deviation and number of seeds as the tables print them, '–' where there are none."""
    if row.mean is None:
        return "–"
    decimals = METRICS[row.metric].decimals
    spread = f" ± {row.sd:.{decimals}f}" if row.sd is not None else ""
    return f"{with_unit(f'{row.mean:.{decimals}f}{spread}', row.metric)} (n = {row.n})"


def released_as(row: Row) -> str:
    """What released weights measure, as the tables print it, '–' where there are none."""
    if row.released is None:
        return "–"
    return with_unit(f"{row.released:.{METRICS[row.metric].decimals}f}", row.metric)


def remark(row: Row) -> str:
    """What must be said beside the verdict. What a run would take stands among what was not attempted."""
    if row.records:
        return row.note
    return UNVERIFIED if row.note.startswith(UNVERIFIED) else ""


def difference(row: Row) -> str:
    """The mean less the printed number, and the 90 % interval of that, as the tables print them; '–' where there is
    no printed number."""
    if row.difference is None:
        return "–"
    decimals = METRICS[row.metric].decimals

    def signed(value: float) -> str:
        text = f"{value:+.{decimals}f}"
        return (text if float(text) else text[1:]).replace("-", "−")  # no sign at zero

    if row.difference_low is None:
        return signed(row.difference)
    return f"{signed(row.difference)} ({signed(row.difference_low)} to {signed(row.difference_high)})"
