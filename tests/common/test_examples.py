"""The bootstrap over test examples."""

import numpy as np
import pytest
from scipy import stats

from common.base import paths
from common.claims.examples import error_interval
from common.claims.rows import paper_rows
from common.pages import tables


@pytest.mark.parametrize("seeds", [1, 3])
def test_it_is_the_bootstrap_of_scipy_over_the_examples(seeds):
    generator, examples = np.random.default_rng(seeds), 2000
    hard = generator.random(examples) < 0.05  # what one seed gets wrong, others tend to get wrong too
    wrong = [generator.random(examples) < np.where(hard, 0.6, 0.01) for _ in range(seeds)]
    expected = stats.bootstrap(
        (np.mean(wrong, axis=0),), np.mean, confidence_level=0.9, method="percentile", batch=100, rng=generator
    ).confidence_interval
    interval = error_interval([set(np.flatnonzero(of)) for of in wrong], examples)
    assert interval == pytest.approx((100 * expected.low, 100 * expected.high), rel=0.02)


def test_without_a_mistake_and_without_a_right_answer_it_has_no_width():
    assert error_interval([set(), set()], 100) == (0.0, 0.0)
    assert error_interval([set(range(100))], 100) == (100.0, 100.0)


def test_seeds_that_miss_the_same_examples_tell_less_than_seeds_that_miss_others():
    same = error_interval([set(range(50))] * 3, 5000)
    others = error_interval([set(range(k, 150, 3)) for k in range(3)], 5000)
    assert same[1] - same[0] > 1.5 * (others[1] - others[0])


def missed(first: int, count: int = 95) -> dict:
    return {"misclassified": [[number, 3, 8] for number in range(first, first + count)]}


def row_of(toy, records):
    return next(row for row in paper_rows(toy.paper(), records) if row.claim and row.claim.id == "plain-test")


def test_a_row_has_it_where_its_records_keep_what_they_missed(toy, record):
    row = row_of(toy, [record(k, details=missed(10 * k)) for k in range(3)])  # 0.95 % of 10,000
    assert row.over_examples == error_interval([set(range(10 * k, 10 * k + 95)) for k in range(3)], 10000)
    low, high = row.over_examples
    assert low < row.summary.mean < high


NO_NUMBERS = {"misclassified": [*range(95)]}
BEYOND = {"misclassified": [[number, 3, 8] for number in range(9_906, 10_001)]}


@pytest.mark.parametrize("other", [{}, missed(0, 94), NO_NUMBERS, BEYOND])
def test_a_record_without_the_list_or_with_one_of_another_protocol_has_none(toy, record, other):
    row = row_of(toy, [record(0, details=missed(0)), record(1, details=missed(0)), record(2, details=other)])
    assert row.over_examples is None


def test_what_is_no_test_error_has_none(toy, record):
    (row,) = (row for row in paper_rows(toy.paper(), [record(0, metric="psnr", details=missed(0))]) if row.summary)
    assert row.over_examples is None


@pytest.mark.parametrize(
    ("seeds", "end"),
    [(1, "(90 % bootstrap interval)"), (3, "one more run at 0.93 to 0.97 % (95 % prediction interval)")],
)
def test_the_pages_set_it_beside_what_another_seed_would_do(toy, record, seeds, end):
    toy.paper()
    toy.publish(*(record(k, details=missed(0)) for k in range(seeds)))
    page = tables.tables()[paths.RESULTS / "README.md"]
    (note,) = (
        line for line in page.splitlines() if line.startswith("- *plain*, test error (last): other test examples")
    )
    assert "would put the mean of these runs at 0.79 to 1.11 % (90 % bootstrap interval)" in note and note.endswith(end)
