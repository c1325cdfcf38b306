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
    by_released = [
        Finding(f"{name(row)} {released_as(row)} by released weights", row.released.verdict)
        for row in rows
        if row.released
    ]
    settled = bool(found)
    if not settled:
        untrained = "what is claimed is not trained yet" if beside or by_released else "not trained yet"
        found = [Finding(untrained), *by_released, *(_beside(comparison, row) for row in beside)]
    else:
        found += by_released
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


def _beside(comparison: Comparison, row: Row) -> Finding:
    """Of a variant that no claim speaks of; the edition is said unless it is as good as the official one."""
    counts = row.edition and comparison.paper.passport(row.variant).counts(row.edition)
    value = measured(row) if counts else _measured(row)
    verdict = "" if row.verdict == v.NO_PUBLISHED_NUMBER else row.verdict
    return Finding(f"{row.variant}, {label(row)} ({row.protocol}) {value}", verdict)


def _why(comparison: Comparison) -> str:
    """The sentence of paper.yaml, with what was measured in its places."""
    rows = {f"{row.variant}/{row.protocol}/{row.metric}": row for row in reversed(comparison.rows) if row.summary}

    def value(place: re.Match[str]) -> str:
        return measured(rows[place[1]]) if place[1] in rows else "not measured yet"

    if comparison.paper.why is None:
        return "not said yet" if comparison.attempted else "nothing was measured yet"
    return re.sub(MEASURED, value, comparison.paper.why)


def coverage(comparisons: list[Comparison]) -> str:
    """How many claims there are, how many were tried by what, with which verdicts, and of which papers none was."""
    standing, released = Counter[str](), Counter[str]()
    for of in comparisons:
        standing.update(of.standing)
        released.update(of.released_standing)
    trained = Counter({word: standing[word] for word in v.WORDS if standing[word] and word != v.NOT_ATTEMPTED})
    by_released = sum(of.tried - of.trained for of in comparisons)
    confirmed = f" ({released.total()} printed numbers: {in_words(released)})" if by_released else ""
    untried = [of.title for of in comparisons if of.standing and not of.tried]
    waiting = standing.total() - sum(of.tried for of in comparisons)
    return (
        f"Of {standing.total()} claims in {len(comparisons)} papers, {_listed(trained)} were measured by training here "
        f"and {by_released or 'none'} by weights that others released{confirmed}; "
        f"still to be measured: {waiting}{', all of ' + _and(untried) + ' among them' if untried else ''}."
    )


def _and(names: list[str]) -> str:
    """'A, B and C'"""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _listed(verdicts: Counter[str]) -> str:
    """'3 (1 reproduced, 2 consistent)'"""
    return f"{verdicts.total()} ({in_words(verdicts)})" if verdicts else "none"


def in_words(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in verdicts.items())
