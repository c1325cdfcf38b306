"""Verdicts: whether the measured seeds settle what the paper printed.

Two one-sided tests at 5 %: the 90 % t-interval of the mean against the claim's
margin. All seeds 0 to n-1 count, none left out.
"""

import math
from dataclasses import dataclass

REPRODUCED = "reproduced"
EXCEEDS = "exceeds"
NOT_REPRODUCED = "not reproduced"
INCONCLUSIVE = "inconclusive"
TOO_FEW_SEEDS = "too few seeds"
NO_PUBLISHED_NUMBER = "no published number"
NOT_ATTEMPTED = "not attempted"
FAILED = "failed"
WORDS = (
    REPRODUCED, EXCEEDS, INCONCLUSIVE, NOT_REPRODUCED, TOO_FEW_SEEDS, FAILED, NOT_ATTEMPTED, NO_PUBLISHED_NUMBER
)  # fmt: skip

CONFIDENCE = 0.90
LEAST_SEEDS = 3


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation and 90 % t-interval of n seeds; sd is None for one."""

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None


def summarise(values: list[float], value_range: tuple[float, float] = (-math.inf, math.inf)) -> Summary:
    """Summary of at least one value. The interval is cut off at the ends of `value_range`,
    since a mean cannot lie beyond them; with zero spread it is the mean itself."""
    from scipy import stats

    n = len(values)
    if all(value == values[0] for value in values):
        mean, sd = values[0], 0.0 if n > 1 else None
    else:
        mean = math.fsum(values) / n
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    if sd is None:
        return Summary(mean, None, n, None, None)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * sd / math.sqrt(n)
    low, high = value_range
    return Summary(mean, sd, n, max(low, mean - half), min(high, mean + half))


def verdict(
    summary: Summary, reported: float, tolerance: float, higher_is_better: bool, seeds: int = LEAST_SEEDS
) -> str:
    """The verdict of a claim that has been measured.

    Edges belong to the margin: an interval that ends exactly on one is inside it.

    Args:
        seeds: how many were fixed before the first run; fewer make no verdict.
    """
    if summary.n < seeds:
        return TOO_FEW_SEEDS
    # Decimal numbers such as 0.95 + 0.19 are not exact in binary; an edge is an
    # edge to a part in 10^9.
    slack = 1e-9 * max(1.0, abs(reported))
    lower, upper = reported - tolerance - slack, reported + tolerance + slack
    if lower <= summary.low and summary.high <= upper:
        return REPRODUCED
    if summary.low > upper:
        return EXCEEDS if higher_is_better else NOT_REPRODUCED
    if summary.high < lower:
        return NOT_REPRODUCED if higher_is_better else EXCEEDS
    return INCONCLUSIVE


def power(n: int, spread: float) -> float:
    """Chance of `reproduced` when the true mean is the reported number.

    Args:
        n: seeds.
        spread: standard deviation over seeds, in units of the tolerance.
    """
    import numpy as np
    from scipy import stats

    # reproduced <=> |mean| + t s / sqrt(n) <= 1, with mean ~ N(0, spread^2/n) and
    # s^2 ~ spread^2 chi2(n-1)/(n-1) independent of it: one integral over s.
    t = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    s = spread * np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
    room = np.maximum(0, 1 - t * s / math.sqrt(n))
    return float(np.mean(2 * stats.norm.cdf(room * math.sqrt(n) / spread) - 1))
