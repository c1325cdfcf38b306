"""Verdicts on both sides of every edge. Made-up values; 1 ± 0.25 has edges that are exact in binary."""

import math
from decimal import Decimal

import numpy as np
import pytest
from scipy import stats

from common.claims import verdict as v
from common.claims.verdict import Summary, power, summarise, verdict

REPORTED, TOLERANCE = 1.0, 0.25
BIT = 1e-6  # just beyond an edge
PERCENT = (0.0, 100.0)


def judge(summary: Summary) -> tuple[str, str]:
    """The verdicts where lower is better and where higher is better."""
    return verdict(summary, REPORTED, TOLERANCE, False), verdict(summary, REPORTED, TOLERANCE, True)


def interval(low: float, high: float) -> Summary:
    return Summary((low + high) / 2, 0.1, v.LEAST_SEEDS, low, high)


@pytest.mark.parametrize(("n", "word"), [(1, v.TOO_FEW_SEEDS), (2, v.TOO_FEW_SEEDS), (3, v.REPRODUCED)])
def test_fewer_than_three_seeds_settle_nothing(n, word):
    assert judge(summarise([REPORTED] * n)) == (word, word)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.75, 1.25), (0.75, 0.9), (1.1, 1.25), (0.75 + BIT, 1.25 - BIT), (0.75, 0.75), (1.25, 1.25), (1.0, 1.0)],
)
def test_an_interval_within_the_margin_reproduces_and_an_edge_is_within(low, high):
    assert judge(interval(low, high)) == (v.REPRODUCED, v.REPRODUCED)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.75 - BIT, 1.25), (0.75, 1.25 + BIT), (0.5, 1.5),  # sticks out
        (0.5, 1.0), (1.0, 1.5), (0.5, 0.75 + BIT), (1.25 - BIT, 1.5),  # crosses one edge
        (0.5, 0.75), (1.25, 1.5),  # touches an edge from outside
    ],
)  # fmt: skip
def test_an_interval_across_an_edge_is_inconclusive(low, high):
    assert judge(interval(low, high)) == (v.INCONCLUSIVE, v.INCONCLUSIVE)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.75 - BIT), (0.1, 0.2), (0.75 - BIT, 0.75 - BIT)])
def test_wholly_below_is_better_for_an_error_and_worse_for_an_accuracy(low, high):
    assert judge(interval(low, high)) == (v.EXCEEDS, v.NOT_REPRODUCED)


@pytest.mark.parametrize(("low", "high"), [(1.25 + BIT, 1.5), (2.0, 3.0), (1.25 + BIT, 1.25 + BIT)])
def test_wholly_above_is_worse_for_an_error_and_better_for_an_accuracy(low, high):
    assert judge(interval(low, high)) == (v.NOT_REPRODUCED, v.EXCEEDS)


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_three_real_seeds_whose_interval_ends_on_the_edge(higher_is_better):
    summary = summarise([0.9, 1.0, 1.2])
    half = summary.high - summary.mean
    assert verdict(summary, summary.mean, half, higher_is_better) == v.REPRODUCED
    assert verdict(summary, summary.mean, half - BIT, higher_is_better) == v.INCONCLUSIVE


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.75, (v.REPRODUCED, v.REPRODUCED)),
        (1.25, (v.REPRODUCED, v.REPRODUCED)),
        (0.75 - BIT, (v.EXCEEDS, v.NOT_REPRODUCED)),
        (1.25 + BIT, (v.NOT_REPRODUCED, v.EXCEEDS)),
    ],
)
def test_zero_spread_is_settled_by_the_value_alone(value, words):
    assert judge(summarise([value] * 3)) == words


@pytest.mark.parametrize(
    ("reported", "tolerance"),
    [("0.95", "0.19"), ("0.35", "0.047"), ("0.8", "0.17"), ("2.1", "0.28"), ("94.52", "0.44"), ("0.731", "0.02")],
)
def test_decimal_edges_are_edges_though_binary_cannot_say_them(reported, tolerance):
    lower, upper = Decimal(reported) - Decimal(tolerance), Decimal(reported) + Decimal(tolerance)
    step = Decimal("0.0001")

    def word(value: Decimal) -> str:
        return verdict(summarise([float(value)] * 3), float(reported), float(tolerance), False)

    assert [word(lower), word(upper)] == [v.REPRODUCED, v.REPRODUCED]
    assert [word(lower - step), word(upper + step)] == [v.EXCEEDS, v.NOT_REPRODUCED]


@pytest.mark.parametrize("values", [[0.9, 1.0], [0.9, 1.0, 1.3], [0.71, 0.93, 0.88, 1.02, 0.95], [1e-9, 2e-9, 4e-9]])
def test_the_interval_is_the_t_interval_of_scipy(values):
    summary = summarise(values)
    expected = stats.t.interval(0.90, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (summary.low, summary.high) == pytest.approx(expected, rel=1e-12)
    assert (summary.mean, summary.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert summary.n == len(values)


def test_one_value_has_no_spread_and_no_interval():
    assert summarise([0.3]) == Summary(0.3, None, 1, None, None)


def test_equal_values_have_an_interval_of_no_width():
    assert summarise([0.1] * 10) == Summary(0.1, 0.0, 10, 0.1, 0.1)


def test_the_interval_is_cut_off_at_0_and_at_100_percent():
    free = summarise([0.0, 0.0, 0.3])
    assert free.low < 0
    low = summarise([0.0, 0.0, 0.3], PERCENT)
    assert (low.low, low.high) == (0.0, free.high)
    high = summarise([100.0, 100.0, 99.7], PERCENT)
    assert (high.low, high.high) == (pytest.approx(100 - free.high), 100.0)


@pytest.mark.parametrize("end", PERCENT)
def test_all_seeds_at_an_end_of_the_range(end):
    summary = summarise([end] * 3, PERCENT)
    assert (summary.low, summary.high) == (end, end)
    assert verdict(summary, end, 0.1, False) == v.REPRODUCED


def test_cutting_off_settles_a_margin_that_ends_where_the_range_does():
    values = [0.0, 0.05, 0.1]
    assert verdict(summarise(values, PERCENT), 0.2, 0.2, False) == v.REPRODUCED
    assert verdict(summarise(values), 0.2, 0.2, False) == v.INCONCLUSIVE


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.25, 0.5, 1.0])
def test_power_agrees_with_a_simulation(n, spread):
    draws = np.random.default_rng([n, int(100 * spread)]).normal(0, spread, (100_000, n))
    half = stats.t.ppf(0.95, n - 1) * draws.std(axis=1, ddof=1) / math.sqrt(n)
    share = np.mean(np.abs(draws.mean(axis=1)) + half <= 1)
    assert power(n, spread) == pytest.approx(share, abs=0.006)  # four standard errors


def test_power_speaks_of_the_verdict_itself():
    draws = np.random.default_rng(0).normal(REPORTED, 0.5 * TOLERANCE, (1000, 3)).tolist()
    share = np.mean([judge(summarise(values))[0] == v.REPRODUCED for values in draws])
    assert power(3, 0.5) == pytest.approx(share, abs=0.063)  # four standard errors
