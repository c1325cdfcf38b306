"""Which rows come out of which records, and what is said beside them."""

import dataclasses

import pytest

from common.base import paths
from common.claims import verdict as v
from common.claims.papers import Paper
from common.claims.rows import (
    ByReleased,
    Row,
    difference,
    label,
    left_out,
    measured,
    paper_rows,
    released_as,
    remark,
    reported_as,
)


@pytest.fixture
def paper(toy) -> Paper:
    return toy.paper()


def id_of(row: Row) -> str | None:
    return row.claim and row.claim.id


def row_of(rows: list[Row], claim: str | None) -> Row:
    (row,) = (row for row in rows if id_of(row) == claim)
    return row


def test_a_claim_with_three_seeds_near_it_is_reproduced(paper, record):
    row = row_of(paper_rows(paper, [record(k, value) for k, value in enumerate((0.9, 0.95, 1.0))]), "plain-test")
    assert (row.verdict, row.summary.n, row.summary.mean, row.note) == (v.REPRODUCED, 3, pytest.approx(0.95), "")
    assert (row.printed, row.edition, row.dataset) == (row.claim, "official", "shapes")
    assert row.records == [f"alpha_2001/plain/official/seed-{k}" for k in range(3)]


def test_each_claim_has_a_row_and_variants_come_in_the_papers_order(paper, record):
    assert [id_of(row) for row in paper_rows(paper, [])] == ["plain-test", "wide-psnr"]
    rows = paper_rows(paper, [record(k, metric="train_error") for k in range(3)])
    assert [id_of(row) for row in rows] == ["plain-test", None, "wide-psnr"]


def test_the_order_within_a_variant(toy, record):
    """Claims first; then editions as in the passport, metrics as in METRICS, protocols as in paper.yaml."""
    metrics, protocols = ["test_error", "train_error", "psnr", "ssim"], ["last", "best", "first", "unheard-of"]
    content = toy.paper_content()
    content["protocols"] = dict.fromkeys(protocols[:3], "")
    plain = content["claims"][0]
    claimed = [("ssim", "best"), ("ssim", "last"), ("test_error", "best"), ("test_error", "last")]
    content["claims"] = [
        plain | {"id": f"{metric}-{protocol}", "metric": metric, "protocol": protocol}
        | ({"reported": "0.9", "tolerance": 0.1} if metric == "ssim" else {})
        for metric, protocol in claimed
    ]  # fmt: skip
    values = dict.fromkeys(reversed(metrics), 0.5)
    measured = dict.fromkeys(reversed(protocols), values)
    records = [record(metrics=measured, edition=edition) for edition in ("resized", "bundle", "official")]
    rows = paper_rows(toy.paper(content=content), records)

    def expected(claim: bool) -> list[tuple]:
        return [
            (claim, edition, metric, protocol)
            for edition in ("official", "bundle", "resized")
            for metric in metrics
            for protocol in protocols
            if ((metric, protocol) in claimed and edition != "resized") == claim
        ]

    assert [(row.claim is not None, row.edition, row.metric, row.protocol) for row in rows] == [
        *expected(True),
        *expected(False),
    ]


def test_the_direction_of_the_metric_counts(paper, record):
    better = [record(k, 31.0, "psnr", variant="wide") for k in range(3)]
    assert row_of(paper_rows(paper, better), "wide-psnr").verdict == v.EXCEEDS
    worse = [record(k, 31.0) for k in range(3)]
    assert row_of(paper_rows(paper, worse), "plain-test").verdict == v.NOT_REPRODUCED


def test_an_edition_that_is_not_equivalent_has_its_own_row_and_no_claim(paper, record):
    rows = paper_rows(paper, [record(k, edition="resized") for k in range(3)])
    assert row_of(rows, "plain-test").verdict == v.NOT_ATTEMPTED
    row = row_of(rows, None)
    assert (row.edition, row.summary.n, row.verdict) == ("resized", 3, v.OTHER_DATA)
    assert (row.printed.reported, row.claim, row.note) == ("0.95", None, "")
    assert reported_as(row) == "0.95 %"


def test_other_data_without_a_printed_value_has_no_published_number(paper, record):
    row = row_of(paper_rows(paper, [record(k, protocol="best", edition="resized") for k in range(3)]), None)
    assert (row.verdict, row.printed, row.difference) == (v.NO_PUBLISHED_NUMBER, None, None)


def test_a_stand_in_meets_neither_a_claim_nor_a_printed_number(paper, record):
    rows = paper_rows(paper, [record(k, edition="stand-in") for k in range(3)])
    assert row_of(rows, "plain-test").summary is None
    row = row_of(rows, None)
    assert (row.edition, row.printed, row.difference) == ("stand-in", None, None)


@pytest.mark.parametrize("edition", ["official", "resized"])
def test_a_row_carries_its_difference_to_the_printed_number(paper, record, edition):
    records = [record(k, value, edition=edition) for k, value in enumerate((0.9, 0.95, 1.03))]
    row = next(row for row in paper_rows(paper, records) if row.summary)
    assert row.summary.n == 3 and row.difference == row.summary.less(0.95)
    assert difference(row) == "+0.01 (−0.10 to +0.12)"
    one = next(row for row in paper_rows(paper, records[1:2]) if row.summary)
    assert (one.difference, difference(one)) == (v.Summary(0.0, 1, None), "0.00")


def test_a_row_carries_the_interval_of_one_more_run(paper, record):
    values = 0.9, 0.95, 1.03
    row = row_of(paper_rows(paper, [record(k, value) for k, value in enumerate(values)]), "plain-test")
    expected = v.summarise(list(values), 0.01, (0.0, 100.0))
    assert row.summary == expected
    spread = row.summary.spread
    assert spread.next_low < spread.low and spread.high < spread.next_high


def test_ties_are_known_no_better_than_to_half_of_one_example(paper, record):
    row = row_of(paper_rows(paper, [record(k) for k in range(3)]), "plain-test")  # 10,000 examples to test on
    assert row.summary.spread.high - row.summary.mean == pytest.approx(2.92 * 0.005 / 3**0.5, rel=1e-3)
    row = row_of(paper_rows(paper, [record(k, metric="psnr") for k in range(3)]), None)  # to the printed 0.01 dB
    assert row.summary.spread.high - row.summary.mean == pytest.approx(2.92 * 0.005 / 3**0.5, rel=1e-3)


def test_training_error_far_off_the_printed_is_neither_better_nor_worse(toy, record):
    content = toy.paper_content()
    content["claims"][0] |= {"metric": "train_error", "tolerance": 0.078}
    paper = toy.paper(content=content)
    far = [[record(k, value, "train_error") for k in range(3)] for value in (0.1, 5.0)]
    assert [row_of(paper_rows(paper, records), "plain-test").verdict for records in far] == [v.LOWER, v.HIGHER]


def test_editions_are_never_averaged(paper, record):
    records = [record(k, 0.95) for k in range(3)] + [record(k, 9.5, edition="bundle") for k in range(3)]
    rows = [row for row in paper_rows(paper, records) if id_of(row) == "plain-test"]
    assert [(row.edition, row.summary.mean) for row in rows] == [("official", 0.95), ("bundle", 9.5)]


def test_variants_are_never_averaged(paper, record):
    records = [record(k, 0.95) for k in range(3)] + [record(k, 9.5, variant="wide") for k in range(3)]
    rows = paper_rows(paper, records)
    assert row_of(rows, "plain-test").summary.mean == 0.95
    assert (row_of(rows, None).variant, row_of(rows, None).summary.mean) == ("wide", 9.5)


@pytest.mark.parametrize(
    ("seeds", "word", "missing"),
    [
        ((0, 2), v.TOO_FEW_SEEDS, "seed 1 missing"),
        ((0, 1, 3), v.TOO_FEW_SEEDS, "seed 2 missing; seeds from 3 on are not counted"),
        ((3, 4, 5), v.TOO_FEW_SEEDS, "seed 0, 1, 2 missing"),
    ],
)
@pytest.mark.parametrize("value", [0.95, 5.0, 0.1])
def test_a_missing_seed_settles_nothing(paper, record, seeds, word, missing, value):
    row = row_of(paper_rows(paper, [record(seed, value) for seed in seeds]), "plain-test")
    assert (row.verdict, row.note) == (word, missing)


def test_fewer_seeds_than_were_fixed_make_no_verdict(toy, record):
    """Else whoever runs seed after seed could stop when the verdict pleases."""
    toy.passport()
    content = toy.paper_content()
    content["variants"]["plain"]["seeds"] = 5
    paper = toy.paper(content=content)
    verdicts = [row_of(paper_rows(paper, [record(k) for k in range(n)]), "plain-test").verdict for n in (3, 4, 5)]
    assert verdicts == [v.TOO_FEW_SEEDS, v.TOO_FEW_SEEDS, v.REPRODUCED]


@pytest.mark.parametrize("value", [0.95, 5.0, 0.1])
def test_a_failed_seed_settles_nothing_and_its_reason_is_told(paper, record, failed_record, value):
    records = [record(0, value), failed_record(1, "the loss is inf"), record(2, value)]
    row = row_of(paper_rows(paper, records), "plain-test")
    assert (row.verdict, row.summary.n, row.note) == (v.INCONCLUSIVE, 2, "seed 1 failed: the loss is inf")
    assert len(row.records) == 3
    row = row_of(paper_rows(paper, [*records, record(3, value)]), "plain-test")  # nor does one more mend it
    assert (row.verdict, row.summary.n) == (v.INCONCLUSIVE, 2)


def test_a_seed_whose_record_lacks_the_metric_counts_as_missing(paper, record):
    records = [record(0), record(1), record(2, protocol="best")]
    row = row_of(paper_rows(paper, records), "plain-test")
    assert (row.verdict, row.note) == (v.INCONCLUSIVE, "seed 2 missing")


def test_seeds_beyond_those_that_were_fixed_judge_nothing(paper, record):
    """Else a verdict could be had by going on until it comes."""
    few = [record(0, 0.95), record(1, 5.0), record(2, 0.95)]
    word = row_of(paper_rows(paper, few), "plain-test").verdict
    row = row_of(paper_rows(paper, [*few, *(record(seed, 0.95) for seed in range(3, 60))]), "plain-test")
    assert (row.verdict, row.summary.n, row.note) == (word, 3, "seeds from 3 on are not counted")
    assert word == v.CONSISTENT != row_of(paper_rows(paper, [record(k, 0.95) for k in range(3)]), "plain-test").verdict


def test_only_failed_seeds_are_failed(paper, failed_record):
    row = row_of(paper_rows(paper, [failed_record(k) for k in range(3)]), "plain-test")
    assert (row.verdict, row.summary) == (v.FAILED, None)
    assert row.note.count("failed: the loss is nan") == 3


def test_a_variant_without_claims_whose_seeds_all_failed_has_a_row(toy, failed_record):
    content = toy.paper_content()
    content["claims"] = []
    (row,) = paper_rows(toy.paper(content=content), [failed_record(0, "the loss is inf"), failed_record(1)])
    assert (row.variant, row.edition, row.verdict, row.summary) == ("plain", "official", v.FAILED, None)
    assert row.note == "seed 0 failed: the loss is inf; seed 1 failed: the loss is nan"
    assert (row.claim, row.metric, row.protocol) == (None, None, None)
    assert (label(row), reported_as(row), measured(row)) == ("–", "–", "–")


def test_failed_seeds_on_an_edition_that_does_not_count_have_a_row(paper, record, failed_record):
    rows = paper_rows(paper, [failed_record(0, edition="resized"), *(record(k) for k in range(3))])
    assert row_of(rows, "plain-test").verdict == v.REPRODUCED
    failed = row_of(rows, None)
    assert (failed.edition, failed.verdict, failed.records) == (
        "resized", v.FAILED, ["alpha_2001/plain/resized/seed-0"]
    )  # fmt: skip


def test_one_seed_that_failed_among_others_has_no_row_of_its_own(paper, record, failed_record):
    rows = paper_rows(paper, [record(0, edition="resized"), failed_record(1, edition="resized")])
    row = row_of(rows, None)
    assert (row.metric, row.summary.n, row.verdict, row.note) == (
        "test_error",
        1,
        v.OTHER_DATA,
        "seed 1 failed: the loss is nan",
    )


def test_nothing_recorded_is_not_attempted_and_says_what_it_needs(paper):
    row = row_of(paper_rows(paper, []), "plain-test")
    assert (row.verdict, row.edition, row.summary) == (v.NOT_ATTEMPTED, None, None)
    assert row.note == "needs about 30 min on a CPU per seed, shapes (official or bundle)"


@pytest.mark.parametrize(("hours", "words"), [(0.75, "45 min"), (4.07, "4.1 h"), (16.27, "16 h"), (120.0, "120 h")])
def test_hours_are_rounded_to_what_is_known_of_them(toy, hours, words):
    content = toy.paper_content()
    content["claims"][0]["needs"] = {"hours": hours, "device": "GPU"}
    note = row_of(paper_rows(toy.paper(content=content), []), "plain-test").note
    assert note.startswith(f"needs about {words} on a GPU per seed, ")


def test_where_no_edition_counts_the_need_for_one_is_told(toy):
    passport = paths.PASSPORTS / "shapes.yaml"
    passport.write_text(passport.read_text().replace("equivalent: true", "equivalent: false"))
    assert (
        row_of(paper_rows(toy.paper(), []), "plain-test").note
        == "needs files of shapes that are shown to be the paper's, and none are known"
    )


@pytest.mark.parametrize("seeds", [0, 3])
def test_an_unverified_claim_says_so(toy, record, seeds):
    content = toy.paper_content()
    content["claims"][0]["unverified"] = True
    row = row_of(paper_rows(toy.paper(content=content), [record(k) for k in range(seeds)]), "plain-test")
    assert row.note.startswith("unverified")


def test_a_measured_value_that_no_claim_speaks_of(paper, record):
    row = row_of(paper_rows(paper, [record(k, protocol="best") for k in range(3)]), None)
    assert (row.protocol, row.verdict, row.summary.n, row.note) == ("best", v.NO_PUBLISHED_NUMBER, 3, "")


def test_numbers_are_written_with_unit_spread_and_count(paper, record):
    rows = paper_rows(paper, [record(k, value) for k, value in enumerate((0.9, 0.95, 1.0))])
    plain, wide = row_of(rows, "plain-test"), row_of(rows, "wide-psnr")
    assert (label(plain), reported_as(plain), measured(plain)) == (
        "test error", "0.95 ± 0.19 %", "0.95 ± 0.05 % (n = 3)"
    )  # fmt: skip
    assert (label(wide), reported_as(wide), measured(wide)) == ("PSNR", "30.10 ± 0.05 dB", "–")
    assert measured(row_of(paper_rows(paper, [record()]), "plain-test")) == "0.95 % (n = 1)"
    unitless = row_of(paper_rows(paper, [record(metric="map_avg")]), None)
    assert measured(unitless) == "0.950 (n = 1)"


@pytest.mark.parametrize(("value", "word"), [(0.95, v.CONFIRMED), (1.14, v.CONFIRMED), (1.15, v.NOT_CONFIRMED)])
def test_released_weights_have_a_word_of_their_own_and_settle_nothing(toy, released_record, value, word):
    row = row_of(paper_rows(toy.paper(content=toy.released_content()), [], [released_record(value)]), "plain-test")
    assert row.released == ByReleased(value, word, "alpha_2001/released/theirs/shapes")
    assert released_as(row) == f"{value:.2f} %"
    assert (row.verdict, row.summary, row.records) == (v.NOT_ATTEMPTED, None, []) and remark(row) == ""


@pytest.mark.parametrize(("reported", "said"), [("0.9", "0.95 %"), ("0.951", "0.950 %")])
def test_released_weights_are_given_to_the_digits_that_are_printed(toy, released_record, reported, said):
    content = toy.released_content()
    content["claims"][0] |= {"reported": reported, "tolerance": 0.19}
    row = row_of(paper_rows(toy.paper(content=content), [], [released_record(0.95)]), "plain-test")
    assert released_as(row) == said


def test_released_weights_change_nothing_of_what_was_trained(toy, record, released_record):
    paper, records = toy.paper(content=toy.released_content()), [record(k, 0.9 + k / 20) for k in range(3)]
    (with_them, *_), (without, *_) = paper_rows(paper, records, [released_record(9.0)]), paper_rows(paper, records)
    assert without.verdict == v.REPRODUCED and with_them.released.verdict == v.NOT_CONFIRMED
    assert dataclasses.replace(with_them, released=None) == without and released_as(without) == "–"


def test_released_weights_speak_of_their_variants_on_data_that_counts(toy, released_record):
    paper = toy.paper(content=toy.released_content())
    wide = {"last": {"psnr": 30.1}}
    other = [
        released_record(metrics=wide),
        released_record(data={"dataset": "shapes", "edition": "resized", "files": {}}),
    ]
    for record in [*other, released_record(metrics={"best": {"test_error": 0.95}})]:
        assert {row.released for row in paper_rows(paper, [], [record])} == {None}
    content = toy.released_content()
    content["released"][0]["variants"] = ["plain", "wide"]
    rows = paper_rows(toy.paper(content=content), [], [released_record(metrics=wide)])
    assert row_of(rows, "wide-psnr").released.verdict == v.CONFIRMED


def test_of_several_released_weights_those_count_that_stand_first(toy, released_record):
    content = toy.released_content()
    content["released"].insert(0, content["released"][0] | {"id": "library", "by": "a library"})
    rows = paper_rows(toy.paper(content=content), [], [released_record(9.0), released_record(0.9, id="library")])
    assert row_of(rows, "plain-test").released.value == 0.9


def test_what_nobody_could_check_is_said_of_released_weights_too(toy, released_record):
    content = toy.released_content()
    content["claims"][0]["unverified"] = True
    assert remark(row_of(paper_rows(toy.paper(content=content), [], [released_record()]), "plain-test")) == "unverified"


@pytest.mark.parametrize(("last", "said"), [(5, "seed 1, 2, 3, 4 missing"), (9, "seed 1, 2, 3, 4 and more missing")])
def test_every_missing_seed_is_named_up_to_a_few(record, last, said):
    assert left_out([record(0), record(last)], {0, last}) == [said]


@pytest.mark.parametrize(("values", "said"), [((0.7, 0.9, 1.3), "one more run: 0.00 to 2.4"), ((0.95,) * 3, "")])
def test_consistent_stands_with_the_interval_that_it_rests_on(toy, record, values, said):
    rows = paper_rows(toy.paper(), [record(seed, value) for seed, value in enumerate(values)])
    (told,) = (remark(row) for row in rows if row.claim and row.records)
    assert told[: len(said)] == said and bool(told) == bool(said)
