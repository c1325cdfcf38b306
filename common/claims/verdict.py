"""Verdicts: what the measured seeds say about a printed number.

Two questions are asked. Is the mean of our runs within the margin of the printed number (two one-sided tests at
5 %: the 90 % t-interval of the mean)? And could the printed number, itself one draw, be one of our runs (the 95 %
prediction interval of one more run)? All seeds 0 to n-1 count, none left out.
"""

import math
from dataclasses import dataclass
from functools import cache

REPRODUCED = "reproduced"
EXCEEDS = "exceeds"
CONSISTENT = "consistent"
INCONCLUSIVE = "inconclusive"
LOWER, HIGHER = "lower", "higher"  # beyond the margin, where the metric has no better side
NOT_REPRODUCED = "not reproduced"
TOO_FEW_SEEDS = "too few seeds"
OTHER_DATA = "other data"
NO_PUBLISHED_NUMBER = "no published number"
NOT_ATTEMPTED = "not attempted"
FAILED = "failed"
WORDS = (  # the best first
    REPRODUCED, EXCEEDS, CONSISTENT, INCONCLUSIVE, LOWER, HIGHER, NOT_REPRODUCED, TOO_FEW_SEEDS, FAILED, NOT_ATTEMPTED,
    OTHER_DATA, NO_PUBLISHED_NUMBER,
)  # fmt: skip
CONFIRMED, NOT_CONFIRMED = "confirmed", "not confirmed"  # of released weights
HOLDS, DOES_NOT_HOLD = "holds", "does not hold"  # of ideas

CONFIDENCE = 0.90  # of the interval of the mean
NEXT_RUN = 0.95  # of the prediction interval
LEAST_SEEDS = 3


@dataclass(frozen=True)
class Spread:
    """Sample standard deviation of several seeds, the 90 % t-interval of their mean (low, high) and the 95 %
    prediction interval of one more run (next_low, next_high)."""

    sd: float
    low: float
    high: float
    next_low: float
    next_high: float


@dataclass(frozen=True)
class Summary:
    """Mean of n seeds, and their spread; one seed has none."""

    mean: float
    n: int
    spread: Spread | None

    def less(self, value: float) -> "Summary":
        """The summary with `value` subtracted from every seed."""
        s = self.spread
        spread = s and Spread(s.sd, s.low - value, s.high - value, s.next_low - value, s.next_high - value)
        return Summary(self.mean - value, self.n, spread)


def summarise(
    values: list[float],
    count: float = 0.0,
    value_range: tuple[float, float] = (-math.inf, math.inf),
    next_run: float = NEXT_RUN,
) -> Summary:
    """Summary of at least one value.

    Args:
        count: how much the metric changes when one more example is counted. Seeds that tie on a count may
            still differ by less than one, so the intervals add half a count to their spread, in quadrature: the
            largest spread of a value that falls on one of two neighbouring counts. So none has zero width.
        value_range: where intervals are cut off, since no mean and no run can lie beyond.
        next_run: the level of the prediction interval.
    """
    n = len(values)
    if n == 1:
        return Summary(values[0], n, None)
    if all(value == values[0] for value in values):
        mean, sd = values[0], 0.0
    else:
        mean = math.fsum(values) / n
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    width = math.hypot(sd, count / 2)
    half = _t(CONFIDENCE, n) * width / math.sqrt(n)
    half_next = _t(next_run, n) * width * math.sqrt(1 + 1 / n)
    least, most = value_range
    spread = Spread(
        sd,
        max(least, mean - half),
        min(most, mean + half),
        max(least, mean - half_next),
        min(most, mean + half_next),
    )
    return Summary(mean, n, spread)


@cache
def _t(level: float, n: int) -> float:
    """How many standard errors of n values an interval of this level reaches to each side."""
    from scipy import stats

    return float(stats.t.ppf((1 + level) / 2, n - 1))


def verdict(
    summary: Summary, reported: float, tolerance: float, higher_is_better: bool | None, seeds: int = LEAST_SEEDS
) -> str:
    """The verdict of a claim that has been measured.

    Edges belong to the margin: an interval that ends exactly on one is inside it.

    Args:
        higher_is_better: None for a metric that has no better side.
        seeds: how many were fixed before the first run; fewer give no verdict.
    """
    spread = summary.spread
    if spread is None or summary.n < max(seeds, LEAST_SEEDS):
        return TOO_FEW_SEEDS
    slack = _slack(reported)
    lower, upper = reported - tolerance - slack, reported + tolerance + slack
    if lower <= spread.low and spread.high <= upper:
        return REPRODUCED
    if spread.next_low - slack <= reported <= spread.next_high + slack:
        return CONSISTENT
    above, below = spread.low > upper, spread.high < lower
    if not (above or below):
        return INCONCLUSIVE
    if higher_is_better is None:
        return HIGHER if above else LOWER
    return EXCEEDS if above == higher_is_better else NOT_REPRODUCED


def confirmation(value: float, reported: float, tolerance: float) -> str:
    """The verdict of released weights: they were trained once, so their value lies within the margin or it does not."""
    return CONFIRMED if abs(value - reported) <= tolerance + _slack(reported) else NOT_CONFIRMED


def idea_verdict(difference: Summary, higher: bool, seeds: int = LEAST_SEEDS) -> str:
    """The verdict of an idea: on which side of zero the 90 % interval of the paired differences lies. One that ends at
    zero lies on neither.

    Args:
        difference: with the part minus without it, seed by seed.
        higher: whether the paper says that the metric is higher with the part.
        seeds: how many were fixed before the first run; fewer pairs give no verdict.
    """
    spread = difference.spread
    if spread is None or difference.n < max(seeds, LEAST_SEEDS):
        return TOO_FEW_SEEDS
    if spread.low <= 0 <= spread.high:
        return INCONCLUSIVE
    return HOLDS if (spread.low > 0) == higher else DOES_NOT_HOLD


def _slack(reported: float) -> float:
    """Decimal numbers such as 0.95 + 0.19 are not exact in binary; an edge is an edge to a part in 10^9."""
    return 1e-9 * max(1.0, abs(reported))


@cache  # two pages show it
def power(n: int, spread: float, printed_is_a_draw: bool = False) -> float:
    """Chance of `reproduced` when nothing differs from the paper.

    Args:
        n: seeds.
        spread: standard deviation over seeds, in units of the tolerance.
        printed_is_a_draw: whether the printed number is one more run, as a paper that ran once prints it; else it
            is the true mean.
    """
    import numpy as np
    from scipy import stats

    # reproduced <=> |d| + t s / sqrt(n) <= 1, where d, our mean minus the printed number, is normal and
    # s^2 ~ spread^2 chi2(n-1)/(n-1) independent of it: one integral over s.
    sd_of_d = spread * math.sqrt(1 / n + printed_is_a_draw)
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    s = spread * np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
    room = np.maximum(0, 1 - _t(CONFIDENCE, n) * s / math.sqrt(n))
    return float(np.mean(2 * stats.norm.cdf(room / sd_of_d) - 1))
