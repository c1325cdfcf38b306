"""Ideas: each verdict from made-up pairs of records, what is paired with what, and how it is printed."""

import pytest
from scipy import stats

from common.base import paths
from common.claims import verdict as v
from common.claims.ideas import IdeaRow, idea_rows, measured_difference, reported_difference
from common.claims.papers import Paper


@pytest.fixture
def paper(toy) -> Paper:
    return toy.paper(content=toy.idea_content())


@pytest.fixture
def runs(record):
    """Makes the records of a variant: a value for each seed from 0 on, None for a seed that is missing."""

    def make(variant, values, **changes):
        return [record(k, value, variant=variant, **changes) for k, value in enumerate(values) if value is not None]

    return make


def row_of(paper, records) -> IdeaRow:
    (row,) = idea_rows(paper, records)
    return row


@pytest.mark.parametrize(
    ("wide", "plain", "word"),
    [
        ((0.7, 0.8, 0.7), (0.9, 0.95, 1.0), v.HOLDS),
        ((0.9, 0.95, 1.0), (0.7, 0.8, 0.7), v.DOES_NOT_HOLD),
        ((0.9, 0.9, 1.0), (0.9, 1.0, 0.9), v.INCONCLUSIVE),
        ((0.9, 0.9, 0.9), (0.9, 0.9, 0.9), v.INCONCLUSIVE),
        ((0.9, 0.9, 0.9), (0.91, 0.91, 0.91), v.INCONCLUSIVE),  # one picture of 10,000 each time
        ((0.9, 0.9, 0.9), (0.92, 0.92, 0.92), v.HOLDS),  # two
        ((0.7, 0.8), (0.9, 0.95), v.TOO_FEW_SEEDS),
        ((0.7, 0.8, 0.7), (0.9, 0.95), v.TOO_FEW_SEEDS),
        ((0.7, 0.8, 0.7), (), v.NOT_ATTEMPTED),
        ((), (), v.NOT_ATTEMPTED),
    ],
)
def test_each_word(paper, runs, wide, plain, word):
    assert row_of(paper, runs("wide", wide) + runs("plain", plain)).verdict == word


def test_the_difference_is_that_of_the_same_seeds(paper, runs):
    """The seeds differ far more among themselves than the variants do."""
    plain = runs("plain", (1.5, 20.7, 5.6))
    row = row_of(paper, runs("wide", (1.0, 20.0, 5.0)) + [plain[k] for k in (1, 2, 0)])
    low, high = stats.t.interval(0.90, 2, -0.6, 0.1 / 3**0.5)
    assert (row.difference.mean, row.difference.n, row.verdict) == (pytest.approx(-0.6), 3, v.HOLDS)
    spread = row.difference.spread
    assert (spread.sd, spread.low, spread.high) == pytest.approx((0.1, low, high), rel=2e-3)
    names = [f"alpha_2001/{name}/official/seed-{k}" for name in ("plain", "wide") for k in range(3)]
    assert sorted(row.records) == names


def test_where_pairs_tie_each_side_adds_half_a_count(paper, runs):
    spread = row_of(paper, runs("wide", (0.9,) * 3) + runs("plain", (1.0,) * 3)).difference.spread
    assert (spread.high - spread.low) / 2 == pytest.approx(2.92 * (2 * 0.005**2 / 3) ** 0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("metric", "direction", "words"),
    [
        ("test_error", None, (v.HOLDS, v.DOES_NOT_HOLD)),
        ("psnr", None, (v.DOES_NOT_HOLD, v.HOLDS)),
        ("train_error", "lower", (v.HOLDS, v.DOES_NOT_HOLD)),
        ("train_error", "higher", (v.DOES_NOT_HOLD, v.HOLDS)),
        ("test_error", "higher", (v.DOES_NOT_HOLD, v.HOLDS)),  # an idea may be that something harms
    ],
)
def test_the_papers_side_of_zero(toy, runs, metric, direction, words):
    paper = toy.paper(content=toy.idea_content(metric=metric, direction=direction))
    plain = runs("plain", (5.0, 6.0, 5.0), metric=metric)
    rows = [row_of(paper, runs("wide", values, metric=metric) + plain) for values in ((1.0,) * 3, (9.0,) * 3)]
    assert tuple(row.verdict for row in rows) == words
    assert {row.direction for row in rows} == {reported_difference(row) for row in rows}
    assert (rows[0].direction == "lower") == (words[0] == v.HOLDS)


@pytest.mark.parametrize("other", [{"metric": "oa"}, {"protocol": "best"}])
def test_what_was_not_measured_on_both_sides_makes_no_pair(paper, runs, other):
    row = row_of(paper, runs("wide", (0.7,) * 3, **other) + runs("plain", (0.9,) * 3))
    assert (row.verdict, row.difference) == (v.NOT_ATTEMPTED, None)


def test_a_seed_that_is_missing_on_one_side_is_named(paper, runs):
    row = row_of(paper, runs("wide", (0.7, None, 0.7)) + runs("plain", (0.9, 0.9, 0.9)))
    assert (row.verdict, row.difference.n, row.note) == (v.TOO_FEW_SEEDS, 2, "wide: seed 1 missing")


def test_a_seed_that_failed_settles_nothing(paper, runs, failed_record):
    records = [*runs("wide", (0.7, None, 0.7)), failed_record(1, variant="wide"), *runs("plain", (0.9,) * 3)]
    row = row_of(paper, records)
    assert (row.verdict, row.note) == (v.INCONCLUSIVE, "wide: seed 1 failed: the loss is nan")
    row = row_of(paper, [failed_record(0, variant="wide"), *runs("plain", (0.9,) * 3)])
    assert (row.verdict, row.difference) == (v.FAILED, None)


def test_there_are_as_many_pairs_as_the_variant_with_fewer_seeds_gets(toy, runs):
    content = toy.idea_content()
    content["variants"]["plain"]["seeds"] = 5
    plain = runs("plain", (0.9,) * 5)
    row = row_of(toy.paper(content=content), runs("wide", (0.7,) * 3) + plain)
    assert (row.verdict, row.note, len(row.records)) == (v.HOLDS, "", 6)
    content["variants"]["wide"]["seeds"] = 5
    paper = toy.paper(content=content)
    words = [row_of(paper, runs("wide", (0.7,) * n) + plain).verdict for n in (3, 4, 5)]
    assert words == [v.TOO_FEW_SEEDS, v.TOO_FEW_SEEDS, v.HOLDS]


def test_each_edition_has_a_row_and_none_is_paired_with_another(paper, runs):
    wide = [run for edition in ("resized", "official") for run in runs("wide", (0.7,) * 3, edition=edition)]
    rows = idea_rows(paper, wide + runs("plain", (0.9,) * 3) + runs("plain", (0.6,) * 3, edition="resized"))
    assert [(row.edition, row.difference.mean) for row in rows] == [
        ("official", pytest.approx(-0.2)),
        ("resized", pytest.approx(0.1)),
    ]
    assert [(row.verdict, row.note) for row in rows] == [
        (v.HOLDS, ""),
        (v.OTHER_DATA, "does not hold on this edition"),
    ]
    row = row_of(paper, wide + runs("plain", (0.9,) * 3, edition="bundle"))
    assert (row.verdict, row.edition, row.records) == (v.NOT_ATTEMPTED, None, [])


def test_the_variant_may_be_another_papers(toy, runs):
    toy.paper("beta_2010")
    paper = toy.paper(content=toy.idea_content(without="beta_2010/plain"))
    own = runs("wide", (0.7,) * 3) + runs("plain", (0.1,) * 3)
    row = row_of(paper, own + runs("plain", (0.9,) * 3, paper="beta_2010"))
    assert (row.verdict, row.difference.mean) == (v.HOLDS, pytest.approx(-0.2))
    folders = [("wide", "alpha_2001/wide/official"), ("beta_2010/plain", "beta_2010/plain/official")]
    assert row.variants == folders
    assert {paths.RECORDS / folder for _, folder in folders} == {
        (paths.RECORDS / f"{name}.json").parent for name in row.records
    }
    assert row_of(paper, own).variants == [("wide", None), ("beta_2010/plain", None)]


def test_papers_may_name_each_other(toy):
    toy.paper("beta_2010")
    toy.paper(content=toy.idea_content(without="beta_2010/plain"))
    beta = toy.paper("beta_2010", toy.idea_content(without="alpha_2001/plain"))
    assert row_of(beta, []).verdict == v.NOT_ATTEMPTED


def test_what_the_paper_prints_of_the_difference(toy):
    """By itself, or as two claims; never one of another metric or protocol."""
    content = toy.idea_content()
    said = lambda content: row_of(toy.paper(content=content), [])  # noqa: E731
    assert (said(content).reported, reported_difference(said(content))) == (None, "lower")
    plain = content["claims"][0]
    content["claims"].append(plain | {"id": "best", "variant": "wide", "protocol": "best", "reported": "0.8"})
    content["claims"][-1]["tolerance"] = 0.17
    assert said(content).reported is None
    content["claims"][-1]["protocol"] = "last"
    assert (said(content).reported, reported_difference(said(content))) == ("-0.15", "−0.15 points")
    content["claims"][-1]["unverified"] = True
    assert said(content).note == "unverified"
    content["ideas"][0]["reported"] = "-0.1"
    row = said(content)
    assert (row.reported, row.as_dict()["reported"], row.as_dict()["reported_text"]) == ("-0.1", -0.1, "-0.1")
    assert (reported_difference(row), row.note) == ("−0.1 points", "")
    content["ideas"][0]["unverified"] = True
    assert said(content).note == "unverified"


def test_a_difference_is_printed_with_sign_interval_and_number_of_pairs(paper, runs):
    row = row_of(paper, runs("wide", (0.7, 0.8, 0.7)) + runs("plain", (0.9, 0.9, 0.9)))
    assert measured_difference(row) == "−0.17 (−0.26 to −0.07) points (n = 3)"
    assert measured_difference(row_of(paper, runs("wide", (0.9,)) + runs("plain", (0.7,)))) == "+0.20 points (n = 1)"
    assert measured_difference(row_of(paper, [])) == "–"
