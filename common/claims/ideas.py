"""Ideas: whether what a paper claims for a part of it holds, by the differences between runs of the same seeds with it
and without it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypedDict

from common.base.metrics import METRICS
from common.claims import verdict as v
from common.claims.papers import Idea, Paper, load_paper
from common.claims.rows import UNVERIFIED, by_seed, left_out, signed, with_interval, with_unit
from common.training.records import FailedRecord, Record


class IdeaAsDict(TypedDict):
    """One object of results/ideas.json. Differences are of the metric with the part minus without it, in the metric's
    unit, and None where there is nothing to take them from: the one that the paper prints (reported, and as it is
    printed), the mean of those measured here of the same seeds (difference) and its 90 % interval (low, high)."""

    paper: str
    idea: str
    says: str
    where: str
    with_variant: str
    without_variant: str
    dataset: str
    edition: str | None
    metric: str
    protocol: str
    direction: str
    reported: float | None
    difference: float | None
    sd: float | None
    n: int
    low: float | None
    high: float | None
    verdict: str
    records: list[str]
    note: str
    reported_text: str | None


@dataclass(frozen=True)
class IdeaRow:
    """An idea, and what its two variants measured on one edition.

    Attributes:
        edition: None where there is none that both were run on.
        records: of both, failed ones too, without the seeds that only one of them gets.
        reported: the difference that the paper prints.
        difference: of the seeds that both have, with the part minus without it; None where there are none.
    """

    paper: str
    idea: Idea
    dataset: str
    edition: str | None
    verdict: str
    records: list[str]
    note: str
    reported: str | None
    difference: v.Summary | None

    @property
    def direction(self) -> str:
        """Which way the metric goes with the part, as the paper says."""
        return v.HIGHER if self.idea.higher else v.LOWER

    @property
    def variants(self) -> list[tuple[str, str | None]]:
        """The one with the part and the one without it, each with the folder of its records below results/records."""
        names = self.idea.with_variant, self.idea.without_variant
        folders = [name if "/" in name else f"{self.paper}/{name}" for name in names]
        return [
            (name, f"{of}/{self.edition}" if self.records else None) for name, of in zip(names, folders, strict=True)
        ]

    def as_dict(self) -> IdeaAsDict:
        idea, difference = self.idea, self.difference
        spread = difference and difference.spread
        return {
            "paper": self.paper,
            "idea": idea.id,
            "says": idea.says,
            "where": idea.where,
            "with_variant": idea.with_variant,
            "without_variant": idea.without_variant,
            "dataset": self.dataset,
            "edition": self.edition,
            "metric": idea.metric,
            "protocol": idea.protocol,
            "direction": self.direction,
            "reported": float(self.reported) if self.reported else None,
            "difference": difference.mean if difference else None,
            "sd": spread.sd if spread else None,
            "n": difference.n if difference else 0,
            "low": spread.low if spread else None,
            "high": spread.high if spread else None,
            "verdict": self.verdict,
            "records": self.records,
            "note": self.note,
            "reported_text": self.reported,
        }


@dataclass(frozen=True)
class _Side:
    """One of an idea's two variants, and records of it."""

    paper: Paper
    variant: str
    records: list[Record]

    def on(self, edition: str | None, seeds: int) -> "_Side":
        """With the records of the first so many seeds on this edition only."""
        return replace(self, records=[r for r in self.records if r.data.edition == edition and r.seed < seeds])


def idea_rows(paper: Paper, records: Sequence[Record]) -> list[IdeaRow]:
    """A row for each idea, in the order of paper.yaml, and each edition that both of its variants were run on, in the
    order of the passport; where there is none, a row without records.

    Args:
        records: of this paper and of the others that its ideas name, failed ones too.
    """
    return [row for idea in paper.ideas for row in _rows_of(paper, idea, records)]


def _rows_of(paper: Paper, idea: Idea, records: Sequence[Record]) -> list[IdeaRow]:
    with_part, without = (_side(paper, name, records) for name in (idea.with_variant, idea.without_variant))
    seeds = min(side.paper.variants[side.variant].seeds for side in (with_part, without))  # the other's have no partner
    pairs = {
        edition: (with_part.on(edition, seeds), without.on(edition, seeds))
        for edition in (*with_part.paper.passport(with_part.variant).editions, None)
    }
    run = [edition for edition, sides in pairs.items() if all(side.records for side in sides)]
    return [_row(paper, idea, edition, *pairs[edition], seeds) for edition in run or [None]]


def _side(paper: Paper, name: str, records: Sequence[Record]) -> _Side:
    owner, _, variant = name.rpartition("/")
    of = load_paper(owner) if owner else paper
    return _Side(of, variant, [record for record in records if (record.paper, record.variant) == (of.name, variant)])


def _row(paper: Paper, idea: Idea, edition: str | None, with_part: _Side, without: _Side, seeds: int) -> IdeaRow:
    reported, unverified = _reported(paper, idea)
    difference = _difference(idea, with_part, without)
    records = with_part.records + without.records
    passport = with_part.paper.passport(with_part.variant)
    notes = [UNVERIFIED] if unverified else []
    if edition is None or difference is None:
        word = v.FAILED if any(isinstance(record, FailedRecord) for record in records) else v.NOT_ATTEMPTED
    else:
        word = v.INCONCLUSIVE if _lacking(idea, with_part, without) else v.idea_verdict(difference, idea.higher, seeds)
        if not passport.counts(edition):
            word, notes = v.OTHER_DATA, [*notes, f"{word} on this edition"]
    for side in (with_part, without):
        measured = by_seed(side.records, idea.protocol, idea.metric)
        notes += [f"{side.variant}: {note}" for note in left_out(side.records, measured)]
    names = [record.name for record in records]
    return IdeaRow(paper.name, idea, passport.name, edition, word, names, "; ".join(notes), reported, difference)


def _lacking(idea: Idea, *sides: _Side) -> bool:
    """Whether a seed failed, or was measured otherwise."""
    return any(r.seed not in by_seed(side.records, idea.protocol, idea.metric) for side in sides for r in side.records)


def _difference(idea: Idea, with_part: _Side, without: _Side) -> v.Summary | None:
    """Of the seeds that both sides have. Each may have fallen on one of two neighbouring counts, so the spread of both
    counts is in that of the difference."""
    one, other = (by_seed(side.records, idea.protocol, idea.metric) for side in (with_part, without))
    differences = [one[seed] - other[seed] for seed in one if seed in other]
    if not differences:
        return None
    count = math.hypot(*(side.paper.count(side.variant, idea.metric) for side in (with_part, without)))
    low, high = METRICS[idea.metric].range
    return v.summarise(differences, count, (low - high, high - low))


def _reported(paper: Paper, idea: Idea) -> tuple[str | None, bool]:
    """The difference that the paper prints, by itself or as two claims, and whether nobody could check it."""
    if idea.reported:
        return idea.reported, idea.unverified
    same = {c.variant: c for c in paper.claims if (c.metric, c.protocol) == (idea.metric, idea.protocol)}
    claims = [same[name] for name in (idea.with_variant, idea.without_variant) if name in same]
    if len(claims) < 2:
        return None, idea.unverified
    with_part, without = (Decimal(claim.reported) for claim in claims)
    return str(with_part - without), idea.unverified or any(claim.unverified for claim in claims)


def measured_on(row: IdeaRow) -> str:
    """'test error, last, official': the metric, the protocol and the edition, as the tables print them."""
    return ", ".join(filter(None, (METRICS[row.idea.metric].label, row.idea.protocol, row.edition)))


def reported_difference(row: IdeaRow) -> str:
    """The difference that the paper prints, or else which way it says that the metric goes, as the tables print it."""
    return _in_points(signed(row.reported), row.idea.metric) if row.reported else row.direction


def measured_difference(row: IdeaRow) -> str:
    """The mean of the differences, its interval and the number of pairs as the tables print them, '–' where there are
    none."""
    if row.difference is None:
        return "–"
    metric = row.idea.metric
    return f"{_in_points(with_interval(row.difference, metric), metric)} (n = {row.difference.n})"


def _in_points(difference: str, metric: str) -> str:
    """With its unit; percentages differ by points."""
    return f"{difference} points" if METRICS[metric].unit == "%" else with_unit(difference, metric)
