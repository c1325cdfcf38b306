"""A paper in three lines: what it claims, what was measured here, and why the two differ; and all papers in one."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from common.base.metrics import METRICS
from common.claims import verdict as v
from common.claims.comparison import Comparison
from common.claims.papers import MEASURED, Claim
from common.claims.rows import UNVERIFIED, Row, label, measured, released_as, with_unit


@dataclass(frozen=True)
class Finding:
    """What came out, and its verdict; '' where there is none."""

    text: str
    verdict: str = ""


@dataclass(frozen=True)
class InShort:
    claimed: str
    measured: list[Finding]
    why: str
    settled: bool  # whether something was trained for what is claimed

    @property
    def about_why(self) -> str:
        return "Why it differs" if self.settled else "Why it may differ"


def in_short(comparison: Comparison) -> InShort:
    """The three lines, of the rows that lead. Their numbers are those of paper.yaml and of the records."""
    beside = [row for rows in comparison.beside[:1] for row in rows]
    asked = {row.protocol for row in comparison.lead}
    beside = [row for row in beside if row.protocol in asked] or beside
    rows = comparison.lead or beside
    claims = list({row.printed.id: row.printed for row in rows if row.printed}.values())
    several = len({(row.metric, row.protocol) for row in rows}) > 1

    def name(of: Row | Claim) -> str:
        metric = METRICS[of.metric].label if of.metric else ""
        return f"{metric} ({of.protocol})" if several else metric

    found = [Finding(f"{name(row)} {_measured(row)}", row.verdict) for row in rows if row.records]
    settled = bool(found)
    if not settled:
        untrained = "what is claimed is not trained yet" if beside else "not trained yet"
        found = [Finding(untrained), *(_beside(row) for row in beside)]
    found += [
        Finding(f"{name(row)} {released_as(row)} by released weights", row.released.verdict)
        for row in rows
        if row.released
    ]
    return InShort(_claimed(comparison, [(name(claim), claim) for claim in claims]), found, _why(comparison), settled)


def _claimed(comparison: Comparison, claims: list[tuple[str, Claim]]) -> str:
    """'test error 0.95 % (Sec. III-B, Fig. 9): the paper's network and recipe, without distortions'"""
    if not claims:
        return "no number that could be set beside what is measured here"
    numbers = ", ".join(f"{name} {with_unit(claim.reported, claim.metric)}" for name, claim in claims)
    places = dict.fromkeys(claim.where for _, claim in claims)
    unverified = [UNVERIFIED] if any(claim.unverified for _, claim in claims) else []
    variant = comparison.paper.variants[claims[0][1].variant]
    return f"{numbers} ({'; '.join([*places, *unverified])}): {variant.description}"


def _measured(row: Row) -> str:
    return measured(row) if row.claim else f"{measured(row)}, on the edition {row.edition}"


def _beside(row: Row) -> Finding:
    """Of a variant that no claim speaks of."""
    return Finding(f"{row.variant}, {label(row)} ({row.protocol}) {_measured(row)}", row.verdict)


def _why(comparison: Comparison) -> str:
    """The sentence of paper.yaml, with what was measured in its places."""
    rows = {f"{row.variant}/{row.protocol}/{row.metric}": row for row in reversed(comparison.rows) if row.summary}

    def value(place: re.Match[str]) -> str:
        return measured(rows[place[1]]) if place[1] in rows else "not measured yet"

    if comparison.paper.why is None:
        return "not said yet" if comparison.attempted else "nothing was measured yet"
    return re.sub(MEASURED, value, comparison.paper.why)


def coverage(comparisons: list[Comparison]) -> str:
    """How many claims there are, and how many were tried by what, with which verdicts."""
    standing, released = Counter[str](), Counter[str]()
    for of in comparisons:
        standing.update(of.standing)
        released.update(of.released_standing)
    claims, waiting = standing.total(), standing.total() - sum(of.tried for of in comparisons)
    trained = Counter({word: standing[word] for word in v.WORDS if standing[word] and word != v.NOT_ATTEMPTED})
    return (
        f"Of {claims} claims in {len(comparisons)} papers, {_listed(trained)} were measured by training "
        f"here and {_listed(released)} by weights that others released; still to be measured: {waiting}."
    )


def _listed(verdicts: Counter[str]) -> str:
    """'3 (1 reproduced, 2 consistent)'"""
    return f"{verdicts.total()} ({in_words(verdicts)})" if verdicts else "none"


def in_words(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in verdicts.items())
