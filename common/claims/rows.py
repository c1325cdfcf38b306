"""Rows of the comparison: every claim, and every measured value that no claim covers."""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from common.base import paths
from common.base.duration import duration
from common.base.metrics import METRICS
from common.claims import verdict as v
from common.claims.examples import error_interval
from common.claims.papers import Claim, Paper
from common.training.records import FailedRecord, FinishedRecord, Metrics, Record, ReleasedRecord, Rounded

SHOWN = 4  # missing seeds
UNVERIFIED = "unverified"  # nobody could check the printed number against the paper


class RowAsDict(TypedDict):
    """One object of results/comparison.json. Numbers are in the metric's unit, and None where there is nothing to take
    them from: the mean and its 90 % interval (low, high), the 95 % prediction interval of one more run (next_low,
    next_high), the mean minus the printed number and its interval, and the 90 % bootstrap interval of the mean over the
    test examples (examples_low, examples_high). What is reported is given as a number, and as it is printed: the
    digits of "9.90" say more than 9.9. The source is who printed it, where that is not the paper."""

    paper: str
    claim: str | None
    variant: str
    dataset: str
    edition: str | None
    metric: str | None
    protocol: str | None
    reported: float | None
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
    released: float | None
    released_verdict: str | None
    released_record: str | None
    reported_text: str | None
    source: str | None


@dataclass(frozen=True)
class ByReleased:
    """What released weights score on a claim."""

    value: float
    verdict: str
    record: str


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        edition: None where nothing was run.
        metric, protocol: None where every seed failed and no claim says what was to be measured.
        claim: the one that the row settles.
        printed: whose printed number is set beside what was measured. A row that is measured on data other than the
            paper's settles no claim but has the printed number all the same.
        summary: of the finished seeds, None where there are none.
        over_examples: the 90 % bootstrap interval of the mean over the test examples, where every record keeps which
            of them it missed.
        records: of all seeds, failed ones too.
        released: kept apart from all that was trained here, with its own verdict and record.
    """

    paper: str
    variant: str
    dataset: str
    edition: str | None
    verdict: str
    records: list[str]
    note: str
    metric: str | None = None
    protocol: str | None = None
    claim: Claim | None = None
    printed: Claim | None = None
    summary: v.Summary | None = None
    over_examples: tuple[float, float] | None = None
    released: ByReleased | None = None

    @property
    def difference(self) -> v.Summary | None:
        """The summary minus the printed number."""
        return self.summary.less(self.printed.value) if self.summary and self.printed else None

    def as_dict(self) -> RowAsDict:
        claim, printed, released = self.claim, self.printed, self.released
        summary, difference = self.summary, self.difference
        spread, difference_spread = summary and summary.spread, difference and difference.spread
        return {
            "paper": self.paper,
            "claim": claim.id if claim else None,
            "variant": self.variant,
            "dataset": self.dataset,
            "edition": self.edition,
            "metric": self.metric,
            "protocol": self.protocol,
            "reported": printed.value if printed else None,
            "tolerance": claim.tolerance if claim else None,
            "mean": summary.mean if summary else None,
            "sd": spread.sd if spread else None,
            "n": summary.n if summary else 0,
            "low": spread.low if spread else None,
            "high": spread.high if spread else None,
            "next_low": spread.next_low if spread else None,
            "next_high": spread.next_high if spread else None,
            "difference": difference.mean if difference else None,
            "difference_low": difference_spread.low if difference_spread else None,
            "difference_high": difference_spread.high if difference_spread else None,
            "examples_low": self.over_examples[0] if self.over_examples else None,
            "examples_high": self.over_examples[1] if self.over_examples else None,
            "verdict": self.verdict,
            "records": self.records,
            "note": self.note,
            "released": released.value if released else None,
            "released_verdict": released.verdict if released else None,
            "released_record": released.record if released else None,
            "reported_text": printed.reported if printed else None,
            "source": printed.source if printed else None,
        }


def paper_rows(paper: Paper, records: list[Record], released: Sequence[ReleasedRecord] = ()) -> list[Row]:
    """Rows in the order of every table: variants as in paper.yaml, a variant's claims before what no
    claim covers, editions as in the passport, metrics as in METRICS, protocols as in paper.yaml.

    Args:
        records: of this paper only, failed ones too.
        released: of this paper's released weights.
    """
    rows: list[Row] = []
    for variant in paper.variants:
        of_variant = [record for record in records if record.variant == variant]
        rows += sorted(_variant_rows(paper, variant, of_variant), key=_order(paper, variant))
    return [
        dataclasses.replace(row, released=_by_released(paper, row.claim, released)) if row.claim else row
        for row in rows
    ]


def _by_released(paper: Paper, claim: Claim, records: Sequence[ReleasedRecord]) -> ByReleased | None:
    """What released weights score on a claim: those that come first in paper.yaml, on data that counts."""
    for released in paper.released:
        for record in records:
            value = record.metrics.get(claim.protocol, {}).get(claim.metric)
            of_claim = released.id == record.id and claim.variant in released.variants
            if of_claim and value is not None and paper.dataset(record.data.dataset).counts(record.data.edition):
                word = v.confirmation(value, claim.value, claim.tolerance)
                return ByReleased(value, word, record.name)
    return None


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
    counted: list[tuple[str | None, list[Record]]]
    counted = [(edition, group) for edition, group in groups.items() if paper.passport(variant).counts(edition)]
    rows = [
        _row(paper, claim, variant, edition, claim.protocol, claim.metric, group)
        for claim in paper.claims
        if claim.variant == variant
        for edition, group in counted or [(None, [])]
    ]
    spoken_for = {(row.edition, row.protocol, row.metric) for row in rows}
    for edition, group in groups.items():
        for protocol, metric in _measured(group):
            if (edition, protocol, metric) not in spoken_for:
                rows.append(_row(paper, None, variant, edition, protocol, metric, group))
        if all(row.edition != edition for row in rows):  # every seed failed, and a failure must be seen
            dataset, names = paper.variants[variant].dataset, [record.name for record in group]
            rows.append(Row(paper.name, variant, dataset, edition, v.FAILED, names, "; ".join(left_out(group))))
    return rows


def _measured(group: list[Record]) -> set[tuple[str, str]]:
    return {(protocol, metric) for record in group for protocol, values in record.metrics.items() for metric in values}


def _row(
    paper: Paper,
    claim: Claim | None,
    variant: str,
    edition: str | None,
    protocol: str,
    metric: str,
    group: list[Record],
) -> Row:
    """The row that settles `claim`, or with None one that settles nothing."""
    values, seeds = by_seed(group, protocol, metric), paper.variants[variant].seeds
    fixed = {seed: value for seed, value in values.items() if seed < seeds}
    counted = fixed if claim and fixed else values
    summary = None
    if counted:
        summary = v.summarise(list(counted.values()), paper.count(variant, metric), METRICS[metric].range)
    subject = variant, protocol, metric
    same = [c for c in paper.claims if (c.variant, c.protocol, c.metric) == subject and edition != paths.STANDIN]
    printed = claim or next(iter(same), None)
    notes = [UNVERIFIED] if printed and printed.unverified else []
    notes += left_out(group, values)
    if len(counted) < len(values):
        notes.append(f"seeds from {seeds} on are not counted")
    if claim and not group:
        notes.append(f"needs {needs(paper, [claim])}")
    return Row(
        paper=paper.name,
        variant=variant,
        dataset=paper.variants[variant].dataset,
        edition=edition,
        verdict=_judge(paper, claim, printed, group, fixed, summary),
        records=[record.name for record in group],
        note="; ".join(notes),
        metric=metric,
        protocol=protocol,
        claim=claim,
        printed=printed,
        summary=summary,
        over_examples=_over_examples(paper, variant, protocol, metric, [r for r in group if r.seed in counted]),
    )


def by_seed(group: list[Record], protocol: str, metric: str) -> dict[int, float]:
    """What each seed measured, of those that measured it."""
    return {
        record.seed: record.metrics[protocol][metric]
        for record in group
        if isinstance(record, FinishedRecord) and metric in record.metrics.get(protocol, {})
    }


def _over_examples(
    paper: Paper, variant: str, protocol: str | None, metric: str | None, group: list[Record]
) -> tuple[float, float] | None:
    """The bootstrap interval over test examples, where every record lists those that it counts as errors:
    `details.misclassified`, each entry beginning with the number of the example."""
    examples = paper.examples(variant, metric) if metric == "test_error" else None
    if metric is None or protocol is None or not examples or not group:
        return None
    finished = [r for r in group if isinstance(r, FinishedRecord) and metric in r.metrics.get(protocol, {})]
    mistakes = [_missed(record, round(examples)) for record in finished]
    errors = [record.metrics[protocol][metric] for record in finished]
    if any(round(error * examples / 100) != len(of) for error, of in zip(errors, mistakes, strict=True)):
        return None  # there is no list, or it is that of another protocol
    return error_interval(mistakes, round(examples))


def _missed(record: FinishedRecord, examples: int) -> set[int]:
    """The numbers of the test examples that a record lists as errors; none where that is no such list."""
    entries = record.details.get("misclassified", [])
    first = [entry[0] if isinstance(entry, list) and entry else None for entry in entries]
    numbers = {number for number in first if isinstance(number, int) and 0 <= number < examples}
    return numbers if len(numbers) == len(first) else set()


def left_out(group: list[Record], measured: Collection[int] = ()) -> list[str]:
    """What must be said about seeds that failed, and about those missing among the measured ones."""
    failed = [record for record in group if isinstance(record, FailedRecord)]
    present = {*measured, *(record.seed for record in failed)}
    last = max((record.seed for record in group), default=-1)
    # A seed such as 10^9 must not make a list that long.
    missing = list(itertools.islice((seed for seed in range(last + 1) if seed not in present), SHOWN + 1))
    notes = [f"seed {record.seed} failed: {record.failure}" for record in failed]
    more = " and more" if len(missing) > SHOWN else ""
    return [*notes, f"seed {', '.join(map(str, missing[:SHOWN]))}{more} missing"] if missing else notes


def _judge(
    paper: Paper,
    claim: Claim | None,
    printed: Claim | None,
    group: list[Record],
    fixed: Mapping[int, float],
    summary: v.Summary | None,
) -> str:
    """The verdict: of the seeds that were fixed, by what each measured, and of no others."""
    if summary is None:
        return v.FAILED if any(isinstance(record, FailedRecord) for record in group) else v.NOT_ATTEMPTED
    if claim is None:
        return v.OTHER_DATA if printed else v.NO_PUBLISHED_NUMBER
    seeds = paper.variants[claim.variant].seeds
    if not fixed:
        return v.TOO_FEW_SEEDS
    if any(record.seed < seeds and record.seed not in fixed for record in group):  # failed, or measured otherwise
        return v.INCONCLUSIVE
    return v.verdict(summary, claim.value, claim.tolerance, METRICS[claim.metric].higher_is_better, seeds)


def needs(paper: Paper, claims: list[Claim]) -> str:
    """What a run that could settle these claims of one variant takes: time per seed, device, data."""
    passport = paper.passport(claims[0].variant)
    counting = [edition for edition in passport.editions if passport.counts(edition)]
    if not counting:
        return f"files of {passport.name} that are shown to be the paper's, and none are known"
    runs = dict.fromkeys(f"{duration(3600 * claim.needs.hours)} on a {claim.needs.device.upper()}" for claim in claims)
    return f"about {' or '.join(runs)} per seed, {passport.name} ({' or '.join(counting)})"


def can_be_settled(paper: Paper, variant: str) -> bool:
    """Whether some edition of the variant's data counts for the paper's claims."""
    passport = paper.passport(variant)
    return any(passport.counts(edition) for edition in passport.editions)


def label(row: Row) -> str:
    """The metric as the tables name it."""
    return METRICS[row.metric].label if row.metric else "–"


def with_unit(value: str, metric: str) -> str:
    return f"{value} {METRICS[metric].unit}".strip()


def about_rounded(records: Iterable[Record]) -> list[str]:
    """What the published files hold and measure whose weights are rounded to float16, a sentence or two for each."""
    finished = [record for record in records if isinstance(record, FinishedRecord)]
    return [_about_rounded(record, record.weights.float16) for record in finished if record.weights.float16]


def _about_rounded(record: FinishedRecord, rounded: Rounded) -> str:
    def listed(metrics: Metrics) -> str:
        values = [(p, m, f"{value:.{METRICS[m].decimals}f}") for p, of in metrics.items() for m, value in of.items()]
        return ", ".join(f"{METRICS[m].label} {with_unit(value, m)} ({protocol})" for protocol, m, value in values)

    now, before = listed(rounded.metrics), listed(record.remeasured or {})
    return (
        f"{record.weights.file} holds the weights of {record.variant}, seed {record.seed}, rounded to float16; its "
        f"sha256 is {rounded.sha256}. It measures {now}; before rounding, {'the same' if now == before else before}."
    )


def reported_as(of: Row | Claim) -> str:
    """The printed value and, where it counts, its margin as the tables print them, '–' where there is none; and who
    printed it, where that is not the paper."""
    claim = of.printed if isinstance(of, Row) else of
    if claim is None:
        return "–"
    margin = f" ± {claim.tolerance:g}" if isinstance(of, Claim) or of.claim else ""
    return with_unit(f"{claim.reported}{margin}", claim.metric) + (f" ({claim.source})" if claim.source else "")


def measured(row: Row) -> str:
    """Mean, standard deviation and number of seeds as the tables print them, '–' where there are none."""
    if row.summary is None or row.metric is None:
        return "–"
    spread = row.summary.spread
    return mean_and_spread(row.metric, row.summary.mean, spread.sd if spread else None, row.summary.n)


def mean_and_spread(metric: str, mean: float, sd: float | None, n: int) -> str:
    """'0.91 ± 0.07 % (n = 5)'"""
    decimals = METRICS[metric].decimals
    spread = "" if sd is None else f" ± {sd:.{decimals}f}"
    return f"{with_unit(f'{mean:.{decimals}f}{spread}', metric)} (n = {n})"


def released_as(row: Row) -> str:
    """What released weights score, to as many digits as the paper prints, '–' where there are none."""
    if row.released is None or row.claim is None:
        return "–"
    printed = len(row.claim.reported.partition(".")[2])
    metric = row.claim.metric
    return with_unit(f"{row.released.value:.{max(printed, METRICS[metric].decimals)}f}", metric)


def remark(row: Row) -> str:
    """What must be said beside the verdict; of *consistent*, the interval that it rests on, which may be wide. What a
    run would take is listed with what was not attempted."""
    if row.records:
        return "; ".join(filter(None, [_one_more_run(row), row.note]))
    return UNVERIFIED if row.note.startswith(UNVERIFIED) else ""


def _one_more_run(row: Row) -> str:
    """'one more run: 57.00 to 100.00 %'"""
    if row.verdict != v.CONSISTENT or not row.summary or not row.summary.spread or not row.metric:
        return ""
    decimals, spread = METRICS[row.metric].decimals, row.summary.spread
    return (
        f"one more run: {with_unit(f'{spread.next_low:.{decimals}f} to {spread.next_high:.{decimals}f}', row.metric)}"
    )


def difference(row: Row) -> str:
    """The mean minus the printed number, and the 90 % interval of that, as the tables print them; '–' where there is
    no printed number."""
    if row.difference is None or row.metric is None:
        return "–"
    return with_interval(row.difference, row.metric)


def with_interval(difference: v.Summary, metric: str) -> str:
    """'−0.04 (−0.22 to +0.15)'; one seed has no interval."""
    decimals, spread = METRICS[metric].decimals, difference.spread

    def text(value: float) -> str:
        return signed(f"{value:.{decimals}f}")

    return text(difference.mean) + (f" ({text(spread.low)} to {text(spread.high)})" if spread else "")


def signed(number: str) -> str:
    """With its sign, a true minus; zero has none."""
    digits = number.removeprefix("-")
    if not float(digits):
        return digits
    return f"−{digits}" if number.startswith("-") else f"+{digits}"
