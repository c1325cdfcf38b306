"""Rows of the comparison: every claim, and every measured value that no claim speaks of."""

import dataclasses
from dataclasses import dataclass

from common import verdict as v
from common.metrics import METRICS
from common.papers import Claim, Paper
from common.records import Record


@dataclass(frozen=True)
class Row:
    """One line of results/comparison.json. Numbers are in the metric's unit; mean, sd, low and
    high (the 90 % interval) are None where there is nothing to take them from."""

    paper: str
    claim: str | None
    variant: str
    dataset: str
    edition: str | None
    metric: str
    protocol: str
    reported: str | None
    tolerance: float | None
    mean: float | None
    sd: float | None
    n: int
    low: float | None
    high: float | None
    verdict: str
    records: list[str]
    note: str

    def as_dict(self) -> dict:
        return dataclasses.asdict(self)


def paper_rows(paper: Paper, records: list[Record]) -> list[Row]:
    """Claims in the paper's order, then the rows without a claim.

    Args:
        records: of this paper only, failed ones too.
    """
    rows, spoken_for = [], set()
    for claim in paper.claims:
        editions = _editions(records, claim.variant)
        counted = [edition for edition in editions if paper.passport(claim.variant).counts(edition)]
        for edition in counted or [None]:
            rows.append(_claim_row(paper, claim, edition, records))
            spoken_for.add((claim.variant, edition, claim.protocol, claim.metric))
    for variant in paper.variants:
        for edition in _editions(records, variant):
            group = _group(records, variant, edition)
            for protocol, metric in _measured(group):
                if (variant, edition, protocol, metric) not in spoken_for:
                    rows.append(_row(paper, None, variant, edition, protocol, metric, group))
    return rows


def _editions(records: list[Record], variant: str) -> list[str]:
    return sorted({record.data.edition for record in records if record.variant == variant})


def _group(records: list[Record], variant: str, edition: str | None) -> list[Record]:
    return [r for r in records if r.variant == variant and r.data.edition == edition]


def _measured(group: list[Record]) -> list[tuple[str, str]]:
    pairs = {(protocol, metric) for record in group for protocol, values in record.metrics.items() for metric in values}
    return sorted(pairs)


def _claim_row(paper: Paper, claim: Claim, edition: str | None, records: list[Record]) -> Row:
    group = _group(records, claim.variant, edition)
    return _row(paper, claim, claim.variant, edition, claim.protocol, claim.metric, group)


def _row(
    paper: Paper,
    claim: Claim | None,
    variant: str,
    edition: str | None,
    protocol: str,
    metric: str,
    group: list[Record],
) -> Row:
    finished = [
        record for record in group if record.status == "finished" and metric in record.metrics.get(protocol, {})
    ]
    summary = v.summarise([r.metrics[protocol][metric] for r in finished], METRICS[metric].range) if finished else None
    word, note = _judge(claim, metric, group, finished, summary)
    numbers = dataclasses.asdict(summary) if summary else dict.fromkeys(("mean", "sd", "low", "high")) | {"n": 0}
    return Row(
        paper=paper.name,
        claim=claim.id if claim else None,
        variant=variant,
        dataset=paper.variants[variant].dataset,
        edition=edition,
        metric=metric,
        protocol=protocol,
        reported=claim.reported if claim else None,
        tolerance=claim.tolerance if claim else None,
        verdict=word,
        records=[_name(record) for record in group],
        note=note,
        **numbers,
    )


def _name(record: Record) -> str:
    return f"{record.paper}/{record.variant}/{record.data.edition}/seed-{record.seed}"


def _judge(claim: Claim | None, metric: str, group: list[Record], finished: list[Record], summary) -> tuple[str, str]:
    """The verdict and what must be said beside it."""
    notes = ["unverified: nobody could check this number against the paper"] if claim and claim.unverified else []
    failed = [record for record in group if record.status == "failed"]
    present = {record.seed for record in finished + failed}
    last = max((record.seed for record in group), default=-1)
    # A gap shows among the first numbers; a seed such as 10^9 must not make a list as long.
    missing = [seed for seed in range(min(last, len(present)) + 1) if seed not in present]
    notes += [f"seed {record.seed} failed: {record.failure}" for record in failed]
    if missing:
        notes.append(f"seed {', '.join(map(str, missing))} missing")
    if not group:
        needs = f"needs about {claim.needs.hours:g} h on a {claim.needs.device} and the dataset"
        return v.NOT_ATTEMPTED, "; ".join([*notes, needs])
    if not finished:
        word = v.FAILED if failed else v.NOT_ATTEMPTED
    elif claim is None:
        word = v.NO_PUBLISHED_NUMBER
    else:
        word = v.verdict(summary, claim.value, claim.tolerance, METRICS[metric].higher_is_better)
        if (failed or missing) and word != v.TOO_FEW_SEEDS:
            word = v.INCONCLUSIVE  # no seed may be left out
    return word, "; ".join(notes)


def written(row: Row) -> tuple[str, str]:
    """The reported and the measured value as the tables print them."""
    metric = METRICS[row.metric]
    unit = f" {metric.unit}" if metric.unit else ""
    reported = f"{row.reported} ± {row.tolerance:g}{unit}" if row.reported else "–"
    if row.mean is None:
        return reported, "–"
    mean = f"{row.mean:.{metric.decimals}f}"
    spread = f" ± {row.sd:.{metric.decimals}f}" if row.sd is not None else ""
    return reported, f"{mean}{spread}{unit} (n = {row.n})"
