"""How far a result would move with other test examples, beside the spread over seeds."""

from common.claims.verdict import CONFIDENCE

RESAMPLES = 9999


def error_interval(mistakes: list[set[int]], examples: int) -> tuple[float, float]:
    """The 90 % bootstrap interval, over the test examples, of the mean error of the seeds, in percent.

    Args:
        mistakes: for each seed, the numbers of the examples that it got wrong.
        examples: how many were tested.

    Examples that equally many seeds got wrong are alike, so a resample is one draw of how many there are of
    each kind (multinomial): the same distribution as drawing the examples one by one.
    """
    import numpy as np

    wrong_in = np.zeros(examples, dtype=int)
    for missed in mistakes:
        wrong_in[list(missed)] += 1
    of_each_kind = np.bincount(wrong_in, minlength=len(mistakes) + 1)
    drawn = np.random.default_rng(0).multinomial(examples, of_each_kind / examples, RESAMPLES)
    errors = 100 * drawn @ np.arange(len(mistakes) + 1) / (len(mistakes) * examples)
    low, high = np.quantile(errors, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
