"""Verdicts on both sides of every edge. Made-up values; 1 ± 0.25 has edges that are exact in binary."""

import dataclasses
import math
from decimal import Decimal

import numpy as np
import pytest
from scipy import stats

from common.claims import verdict as v
from common.claims.verdict import Spread, Summary, confirmation, idea_verdict, power, summarise, verdict

REPORTED, TOLERANCE = 1.0, 0.25
BIT = 1e-6  # just beyond an edge
COUNT = 0.01  # one of 10,000, in percent
PERCENT = (0.0, 100.0)


def judge(summary: Summary) -> tuple[str, str, str]:
    """The verdicts where lower is better, where higher is better, and where neither is."""
    return tuple(verdict(summary, REPORTED, TOLERANCE, better) for better in (False, True, None))


def interval(low: float, high: float, next_run: tuple[float, float] | None = None) -> Summary:
    """Of the mean, and that of one more run, which is the same unless it is given."""
    return Summary((low + high) / 2, v.LEAST_SEEDS, Spread(0.1, low, high, *(next_run or (low, high))))


@pytest.mark.parametrize(("n", "word"), [(1, v.TOO_FEW_SEEDS), (2, v.TOO_FEW_SEEDS), (3, v.REPRODUCED)])
def test_fewer_than_three_seeds_settle_nothing(n, word):
    assert judge(summarise([REPORTED] * n)) == (word,) * 3


def test_fewer_seeds_than_were_fixed_settle_nothing():
    words = [verdict(summarise([REPORTED] * n), REPORTED, TOLERANCE, True, seeds=5) for n in (3, 4, 5)]
    assert words == [v.TOO_FEW_SEEDS, v.TOO_FEW_SEEDS, v.REPRODUCED]


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.75, 1.25), (0.75, 0.9), (1.1, 1.25), (0.75 + BIT, 1.25 - BIT), (0.75, 0.75), (1.25, 1.25), (1.0, 1.0)],
)
def test_an_interval_within_the_margin_reproduces_and_an_edge_is_within(low, high):
    assert judge(interval(low, high)) == (v.REPRODUCED,) * 3


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.75 - BIT, 1.25), (0.75, 1.25 + BIT), (0.5, 1.5),  # sticks out
        (0.5, 0.9), (1.1, 1.5), (0.5, 0.75 + BIT), (1.25 - BIT, 1.5),  # crosses one edge
        (0.5, 0.75), (1.25, 1.5),  # touches an edge from outside
    ],
)  # fmt: skip
def test_an_interval_across_an_edge_is_inconclusive_or_consistent(low, high):
    """It depends on whether the printed number could be one more run."""
    assert judge(interval(low, high, next_run=(1 + BIT, 2.0))) == (v.INCONCLUSIVE,) * 3
    assert judge(interval(low, high, next_run=(0.0, 1 - BIT))) == (v.INCONCLUSIVE,) * 3
    for next_run in ((1.0, 2.0), (0.0, 1.0), (0.0, 2.0)):
        assert judge(interval(low, high, next_run)) == (v.CONSISTENT,) * 3


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.75 - BIT), (0.1, 0.2), (0.75 - BIT, 0.75 - BIT)])
def test_wholly_below_is_better_for_an_error_and_worse_for_an_accuracy(low, high):
    assert judge(interval(low, high)) == (v.EXCEEDS, v.NOT_REPRODUCED, v.LOWER)
    assert judge(interval(low, high, next_run=(0.0, 1.0))) == (v.CONSISTENT,) * 3


@pytest.mark.parametrize(("low", "high"), [(1.25 + BIT, 1.5), (2.0, 3.0), (1.25 + BIT, 1.25 + BIT)])
def test_wholly_above_is_worse_for_an_error_and_better_for_an_accuracy(low, high):
    assert judge(interval(low, high)) == (v.NOT_REPRODUCED, v.EXCEEDS, v.HIGHER)
    assert judge(interval(low, high, next_run=(1.0, 9.0))) == (v.CONSISTENT,) * 3


@pytest.mark.parametrize(
    ("low", "high", "lower", "higher"),
    [
        (-0.2, -BIT, v.HOLDS, v.DOES_NOT_HOLD),
        (-0.2, 0.0, v.INCONCLUSIVE, v.INCONCLUSIVE),
        (-0.2, 0.1, v.INCONCLUSIVE, v.INCONCLUSIVE),
        (0.0, 0.2, v.INCONCLUSIVE, v.INCONCLUSIVE),
        (BIT, 0.2, v.DOES_NOT_HOLD, v.HOLDS),
    ],
)
def test_an_idea_goes_by_the_side_of_zero_and_zero_is_on_neither(low, high, lower, higher):
    difference = interval(low, high)
    assert [idea_verdict(difference, paper_says_higher) for paper_says_higher in (False, True)] == [lower, higher]


def test_an_idea_needs_all_its_pairs():
    assert [idea_verdict(summarise([-1.0] * n), higher=False) for n in (1, 2, 3)] == [v.TOO_FEW_SEEDS] * 2 + [v.HOLDS]
    assert [idea_verdict(summarise([-1.0] * n), False, seeds=5) for n in (4, 5)] == [v.TOO_FEW_SEEDS, v.HOLDS]


@pytest.mark.parametrize("higher_is_better", [False, True, None])
def test_three_real_seeds_whose_interval_ends_on_the_edge(higher_is_better):
    summary = summarise([0.9, 1.0, 1.2])
    half = summary.spread.high - summary.mean
    assert verdict(summary, summary.mean, half, higher_is_better) == v.REPRODUCED
    assert verdict(summary, summary.mean, half - BIT, higher_is_better) == v.CONSISTENT


def test_the_printed_number_at_the_end_of_what_one_more_run_may_give():
    summary = summarise([2.9, 3.0, 3.2])
    least = summary.spread.next_low
    assert verdict(summary, least, 0.1, True) == v.CONSISTENT
    assert verdict(summary, least - BIT, 0.1, True) == v.EXCEEDS


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.75, (v.REPRODUCED,) * 3),
        (1.25, (v.REPRODUCED,) * 3),
        (0.75 - BIT, (v.EXCEEDS, v.NOT_REPRODUCED, v.LOWER)),
        (1.25 + BIT, (v.NOT_REPRODUCED, v.EXCEEDS, v.HIGHER)),
    ],
)
def test_without_counts_zero_spread_is_settled_by_the_value_alone(value, words):
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
    near = [confirmation(float(value), float(reported), float(tolerance)) for value in (lower, upper)]
    beyond = [confirmation(float(value), float(reported), float(tolerance)) for value in (lower - step, upper + step)]
    assert near == [v.CONFIRMED] * 2 and beyond == [v.NOT_CONFIRMED] * 2


@pytest.mark.parametrize("values", [[0.9, 1.0], [0.9, 1.0, 1.3], [0.71, 0.93, 0.88, 1.02, 0.95], [1e-9, 2e-9, 4e-9]])
def test_the_intervals_are_the_t_intervals_of_scipy(values):
    summary, n = summarise(values), len(values)
    mean, sd = np.mean(values), np.std(values, ddof=1)
    expected = sd, *stats.t.interval(0.90, n - 1, mean, stats.sem(values))
    expected += stats.t.interval(0.95, n - 1, mean, sd * math.sqrt(1 + 1 / n))
    assert (summary.mean, summary.n) == (pytest.approx(mean), n)
    assert dataclasses.astuple(summary.spread) == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_one_more_run_lies_in_its_interval_95_times_of_100(n):
    draws = np.random.default_rng(n).normal(size=(4000, n + 1))
    spreads = [summarise(draw[:n].tolist()).spread for draw in draws]
    inside = np.mean([s.next_low <= draw[n] <= s.next_high for s, draw in zip(spreads, draws, strict=True)])
    assert inside == pytest.approx(0.95, abs=0.014)  # four standard errors


def test_one_value_has_no_spread_and_no_interval():
    assert summarise([0.3], COUNT) == Summary(0.3, 1, None)


def test_equal_values_have_no_spread_and_intervals_of_half_a_count():
    summary = summarise([0.1] * 3, COUNT)
    spread = summary.spread
    assert (summary.mean, spread.sd) == (0.1, 0.0)
    assert (spread.low, spread.high) == pytest.approx(stats.t.interval(0.90, 2, 0.1, COUNT / 2 / math.sqrt(3)))
    assert spread.high - spread.low > 2 * stats.t.ppf(0.95, 2) * COUNT / math.sqrt(12) / math.sqrt(3)
    assert spread.next_high - spread.next_low > 2 * stats.t.ppf(0.975, 2) * COUNT / math.sqrt(12)


@pytest.mark.parametrize(("steps", "word"), [(2, v.REPRODUCED), (1, v.CONSISTENT)])
def test_three_tied_seeds_need_a_margin_wider_than_their_count(steps, word):
    """They say where the mean is to within a count, and no better."""
    assert verdict(summarise([0.1] * 3, COUNT), 0.1 + COUNT, steps * COUNT, False) == word


def test_half_a_count_hardly_widens_what_many_counts_spread():
    wide, narrow = summarise([0.8, 0.9, 1.0], COUNT), summarise([0.8, 0.9, 1.0])
    assert (wide.mean, wide.spread.sd) == (narrow.mean, narrow.spread.sd)
    assert 1 < (wide.spread.high - wide.spread.low) / (narrow.spread.high - narrow.spread.low) < 1.002


def test_intervals_are_cut_off_at_0_and_at_100_percent():
    free = summarise([0.0, 0.0, 0.3]).spread
    assert free.low < 0 and free.next_low < free.low
    low = summarise([0.0, 0.0, 0.3], value_range=PERCENT).spread
    assert (low.low, low.high, low.next_low, low.next_high) == (
        0.0,
        free.high,
        0.0,
        free.next_high,
    )
    high = summarise([100.0, 100.0, 99.7], value_range=PERCENT).spread
    assert (high.low, high.high, high.next_high) == (
        pytest.approx(100 - free.high),
        100.0,
        100.0,
    )


@pytest.mark.parametrize("end", PERCENT)
@pytest.mark.parametrize("higher_is_better", [False, True, None])
def test_all_seeds_at_an_end_of_the_range(end, higher_is_better):
    summary = summarise([end] * 3, COUNT, PERCENT)
    assert end in (summary.spread.low, summary.spread.high) and 0 < summary.spread.high - summary.spread.low < COUNT
    assert verdict(summary, end, 0.1, higher_is_better) == v.REPRODUCED
    assert verdict(summary, end, COUNT / 10, higher_is_better) == v.CONSISTENT


def test_a_perfect_score_far_from_the_printed_one():
    summary = summarise([100.0] * 3, COUNT, PERCENT)
    assert verdict(summary, 98.0, 0.5, True) == v.EXCEEDS
    assert verdict(summarise([0.0] * 3, COUNT, PERCENT), 98.0, 0.5, True) == v.NOT_REPRODUCED


def test_cutting_off_settles_a_margin_that_ends_where_the_range_does():
    values = [0.0, 0.05, 0.1]
    assert verdict(summarise(values, value_range=PERCENT), 0.2, 0.2, False) == v.REPRODUCED
    assert verdict(summarise(values), 0.2, 0.2, False) == v.CONSISTENT


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("printed_is_a_draw", [False, True])
def test_power_agrees_with_a_simulation(n, spread, printed_is_a_draw):
    draws = np.random.default_rng([n, int(100 * spread)]).normal(0, spread, (100_000, n + 1))
    ours, printed = draws[:, :n], draws[:, n] * printed_is_a_draw
    half = stats.t.ppf(0.95, n - 1) * ours.std(axis=1, ddof=1) / math.sqrt(n)
    share = np.mean(np.abs(ours.mean(axis=1) - printed) + half <= 1)
    assert power(n, spread, printed_is_a_draw) == pytest.approx(share, abs=0.006)  # four standard errors


def test_power_is_smaller_where_the_printed_number_is_a_draw_itself():
    assert [round(100 * power(5, 0.5, drawn)) for drawn in (False, True)] == [95, 67]


def test_power_speaks_of_the_verdict_itself():
    draws = np.random.default_rng(0).normal(REPORTED, 0.5 * TOLERANCE, (1000, 3)).tolist()
    share = np.mean([judge(summarise(values))[0] == v.REPRODUCED for values in draws])
    assert power(3, 0.5) == pytest.approx(share, abs=0.063)  # four standard errors


TRIALS = 10_000
AT_MOST = 0.05 + 3 * math.sqrt(0.05 * 0.95 / TRIALS)  # three Monte Carlo standard errors
SPREADS = (0.1, 0.25, 0.5, 1.0, 2.0)  # in margins


def share_reproduced(draws: np.ndarray, margin: float, count: float) -> float:
    """Of trials (N, n), where 0 is printed."""
    words = [verdict(summarise(values, count), 0.0, margin, None) for values in draws.tolist()]
    return words.count(v.REPRODUCED) / len(words)


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("side", [-1, 1])
def test_at_a_difference_of_the_margin_reproduced_errs_at_5_percent(n, spread, side):
    draws = np.random.default_rng([n, int(100 * spread), side + 1]).normal(side, spread, (TRIALS, n))
    assert share_reproduced(draws, margin=1.0, count=0.0) <= AT_MOST


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("counts", [1, 1.95, 2.5, 4.4, 19])
def test_ties_on_a_count_make_no_more_errors(n, spread, counts):
    """The margin is a few counts. A value between two counts falls on either, so that its mean stays where it is:
    exactly at the edge, wherever between two counts the edge lies."""
    for offset in (0.0, 0.3, 0.5, 0.7):
        generator = np.random.default_rng([n, int(100 * spread), int(10 * counts), int(10 * offset)])
        at_the_edge = generator.normal(offset, spread * counts, (TRIALS, n))
        below = np.floor(at_the_edge)
        counted = below + (generator.random((TRIALS, n)) < at_the_edge - below)
        from_the_printed = counted - offset + counts
        assert share_reproduced(from_the_printed, margin=counts, count=1.0) <= AT_MOST


def test_without_half_a_count_ties_would_reproduce_what_lies_at_the_edge():
    """The simulation can fail: with n = 3, margin and spread of 2 and 0.2 counts, nearly a third pass."""
    draws = np.random.default_rng(0).normal(0, 0.2, (TRIALS // 10, 3))
    counted = np.floor(draws) + (np.random.default_rng(1).random(draws.shape) < draws - np.floor(draws))
    assert (
        share_reproduced(counted + 2, margin=2, count=0.0) > 0.25 > 0.05 > share_reproduced(counted + 2, 2, count=1.0)
    )
