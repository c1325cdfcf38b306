"""paper.yaml: what is wrong is told in one line that names file, claim and field; the one rule for margins."""

import numpy as np
import pytest

from common.base import paths
from common.base.errors import UsageError
from common.claims.papers import find_papers, load_paper, tolerance_by_rule


def first_claim(**changes):
    return lambda content: content["claims"][0].update(changes)


def rename_claim(content):
    content["claims"][1]["id"] = "plain-test"


def release(**changes):
    return lambda content: content["released"][0].update(changes)


def idea(**changes):
    return lambda content: content["ideas"][0].update(changes)


BROKEN = {
    "too few seeds for any verdict": (lambda c: c["variants"]["plain"].update(seeds=2), "variants.plain.seeds: "),
    "no examples": (lambda c: c["variants"]["plain"].update(splits={"test": 0}), "variants.plain.splits.test: "),
    "unknown field": (first_claim(tolerence=0.19), "claims.plain-test.tolerence: is unknown"),
    "unknown field at the top": (lambda c: c.update(clams=[]), "clams: is unknown"),
    "missing field": (lambda c: c["claims"][0].pop("where"), "claims.plain-test.where: is missing"),
    "missing id": (lambda c: c["claims"][0].pop("id"), "claims.0.id: is missing"),
    "missing part": (lambda c: c.pop("protocols"), "protocols: is missing"),
    "number not quoted": (first_claim(reported=0.95), "claims.plain-test.reported:"),
    "number with a unit": (first_claim(reported="0.95 %"), "claims.plain-test.reported:"),
    "number beyond its range": (first_claim(reported="150"), "claims.plain-test.reported: 150"),
    "words for a number": (first_claim(tolerance="small"), "claims.plain-test.tolerance:"),
    "not a number": (first_claim(tolerance=float("nan")), "claims.plain-test.tolerance:"),
    "wrong type below": (first_claim(needs={"hours": "two"}), "claims.plain-test.needs.hours:"),
    "no list": (lambda c: c.update(claims={}), "claims:"),
    "year in words": (lambda c: c["citation"].update(year="MMI"), "citation.year:"),
    "duplicate id": (rename_claim, "claims.plain-test.id: two claims"),
    "unknown variant": (first_claim(variant="plane"), "claims.plain-test.variant: 'plane' is not a variant"),
    "unknown weights": (lambda c: c.update(weights_of="plane"), "weights_of: 'plane' is not a variant"),
    "unknown default": (lambda c: c.update(default_variant="plane"), "default_variant: 'plane' is not a variant"),
    "unknown lead": (lambda c: c.update(lead_variant="plane"), "lead_variant: 'plane' is not a variant"),
    "unknown headline": (lambda c: c.update(headline=["psrn"]), "headline: 'psrn' is not a metric. Did you mean psnr?"),
    "unknown metric": (
        first_claim(metric="tset_error"),
        "claims.plain-test.metric: 'tset_error' is not a metric. Did you mean test_error?",
    ),
    "no margin": (
        lambda c: c["claims"][0].update(metric="gradient_norm"),
        "claims.plain-test.spread: is missing, and nothing else gives a margin for gradient norm",
    ),
    "unknown protocol": (first_claim(protocol="first"), "claims.plain-test.protocol: 'first'"),
    "unknown dataset": (
        lambda c: c["variants"]["wide"].update(dataset="shape"),
        "variants.wide.dataset: No dataset is called 'shape'. Did you mean shapes?",
    ),
    "ranking of no claim": (
        lambda c: c.update(also_reported=[{"what": "w", "where": "T", "claim": "plan-test", "values": {"a": "1"}}]),
        "also_reported.w.claim: 'plan-test' is not a claim. Did you mean plain-test?",
    ),
    "ranking of words": (
        lambda c: c.update(also_reported=[{"what": "w", "where": "T", "claim": "plain-test", "values": {"a": "1 %"}}]),
        "also_reported.w.values: '1 %' is not a number to rank a claim with",
    ),
    "nothing also reported": (
        lambda c: c.update(also_reported=[{"what": "w", "where": "T", "values": {}}]),
        "also_reported.0.values: ",
    ),
    "class sizes of another dataset": (
        lambda c: (
            c["variants"]["plain"].update(splits={"train": 5, "test": 6}),
            c.update(class_sizes={"shapes": [9]}),
        ),
        "variants.plain.splits: do not add up to the 9 examples of class_sizes",
    ),
    "word of no protocol": (
        lambda c: c["protocols"].update({"{cut}-{size}": {"means": "cut", "each": {"cut": ["a"]}}}),
        "protocols.{cut}-{size}: 'size' is not among the words of `each`",
    ),
    "word of no meaning": (
        lambda c: c["protocols"].update({"{cut}": {"means": "cut to {size}", "each": {"cut": ["a"]}}}),
        "protocols.{cut}: 'size' is not among the words of `each`",
    ),
    "a protocol said twice": (
        lambda c: c["protocols"].update({"{which}": {"means": "some", "each": {"which": ["best"]}}}),
        "protocols.{which}: 'best' is named twice",
    ),
    "code that is no address": (lambda c: c["citation"].update(code="github.com/x"), "citation.code:"),
    "why, in no sentence": (lambda c: c.update(why="unknown"), "why:"),
    "why, in two lines": (lambda c: c.update(why="One.\nTwo."), "why:"),
    "why, by a number that is never measured": (
        lambda c: c.update(why="It is {plain/test_error}."),
        "why: {plain/test_error} is not a {variant/protocol/metric} of this paper",
    ),
    "why, by a variant that is not there": (
        lambda c: c.update(why="It is {plane/last/test_error}."),
        "why: {plane/last/test_error} is not a {variant/protocol/metric} of this paper",
    ),
    "another source's number as the paper's": (
        first_claim(source="a blog"),
        "claims.plain-test.detail: must be true, for a blog is not the paper",
    ),
    "released without an id": (lambda c: c["released"][0].pop("id"), "released.0.id: is missing"),
    "released for no variant": (release(variants=[]), "released.theirs.variants:"),
    "released for an unknown variant": (
        release(variants=["plane"]),
        "released.theirs.variants: 'plane' is not a variant",
    ),
    "released in an unknown dataset": (release(dataset="shape"), "released.theirs: No dataset is called 'shape'."),
    "released to test on an unknown dataset": (
        release(tests=["shape"]),
        "released.theirs: No dataset is called 'shape'.",
    ),
    "released in a file that no passport has": (
        release(file="train.mat"),
        "released.theirs.file: the passport of shapes has no 'train.mat'",
    ),
    "released twice": (
        lambda c: c["released"].append(c["released"][0]),
        "released.theirs.id: two entries have this id",
    ),
    "idea without a variant": (lambda c: c["ideas"][0].pop("without"), "ideas.width.without: is missing"),
    "idea of an unknown variant": (
        idea(without="plane"),
        "ideas.width.without: 'plane' is not a variant. Did you mean plain?",
    ),
    "idea of an unknown paper": (
        idea(**{"with": "alpha_2002/wide"}),
        "ideas.width.with: No paper is called 'alpha_2002'. Did you mean alpha_2001?",
    ),
    "idea of another paper's unknown variant": (
        idea(without="alpha_2001/plane"),
        "ideas.width.without: 'alpha_2001/plane' is not a variant. Did you mean plain?",
    ),
    "idea of an unknown metric": (idea(metric="tset_error"), "ideas.width.metric: 'tset_error' is not a metric."),
    "idea of an unknown protocol": (idea(protocol="first"), "ideas.width.protocol: 'first'"),
    "idea that neither raises nor lowers": (
        idea(metric="train_error"),
        "ideas.width.direction: is missing, and training error has no better side",
    ),
    "idea in another direction": (idea(direction="up"), "ideas.width.direction: "),
    "idea against its printed difference": (
        idea(reported="0.2"),
        "ideas.width.reported: 0.2 does not say that test error is lower",
    ),
    "idea with a difference in words": (idea(reported="-0.2 %"), "ideas.width.reported: "),
    "idea listed twice": (lambda c: c["ideas"].append(c["ideas"][0]), "ideas.width.id: two ideas have this id"),
    "tolerance too wide": (first_claim(tolerance=0.2), "claims.plain-test.tolerance: is 0.2, the rule gives 0.19"),
    "tolerance too narrow": (first_claim(tolerance=0.18), "claims.plain-test.tolerance: is 0.18, the rule gives 0.19"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_entry_is_told_in_one_line_with_its_place(toy, name):
    breaks, expected = BROKEN[name]
    content = toy.released_content() | toy.idea_content()
    breaks(content)
    with pytest.raises(UsageError) as told:
        toy.paper(content=content)
    text = str(told.value)
    assert f"alpha_2001/paper.yaml: {expected}" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "text",
    ["", "just words", "- a\n- list", "claims: [", "a: b: c", "\tx", "a: \x00", "\ufeff- !!python/name:os.system"],
)
def test_a_file_that_is_no_paper_at_all(toy, text):
    with pytest.raises(UsageError) as told:
        toy.paper(content=text)
    assert "alpha_2001/paper.yaml: " in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("claims: []\nprotocols: {}\nclaims: []\n", "claims", 3),
        ("variants:\n  plain: {}\n  wide: {}\n  plain: {}\n", "plain", 4),
        ('claims:\n- id: a\n  reported: "1"\n  reported: "2"\n', "reported", 4),
        ("variants: {plain: {}, 'plain': {}}", "plain", 1),
        ("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 1, y: 2}", "y", 3),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_line(toy, text, key, line):
    with pytest.raises(UsageError) as told:
        toy.paper(content=text)
    assert str(told.value).endswith(f"alpha_2001/paper.yaml: {key}: appears twice, again in line {line}")


def test_aliases_merges_and_equal_words_of_other_kinds_are_no_duplicates(toy):
    text = "a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: [*a, *a]\n1: one\n'1': one\n"
    with pytest.raises(UsageError, match="citation: is missing"):  # sound as YAML, though no paper
        toy.paper(content=text)


def test_a_passport_with_a_key_that_stands_twice_is_named(toy):
    passport = paths.PASSPORTS / "shapes.yaml"
    passport.write_text(passport.read_text() + "terms: free\n")
    with pytest.raises(UsageError, match=r"shapes\.yaml: terms: appears twice"):
        toy.paper()


def test_bytes_that_are_no_text(toy):
    toy.paper().file.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UsageError, match=r"paper\.yaml: cannot be read"):
        load_paper("alpha_2001")


def test_a_counted_metric_needs_the_number_of_examples(toy):
    content = toy.paper_content()
    content["claims"][0]["metric"] = "train_error"
    passport = toy.root / "common" / "data" / "passports" / "shapes.yaml"
    passport.write_text(passport.read_text().replace("train: 60000", "training: 60000"))
    with pytest.raises(UsageError, match=r"paper\.yaml: claims\.plain-test\.metric: .*'train'"):
        toy.paper(content=content)


def test_an_idea_compares_variants_of_one_dataset(toy):
    passport = paths.PASSPORTS / "shapes.yaml"
    (paths.PASSPORTS / "squares.yaml").write_text(passport.read_text())
    content = toy.idea_content()
    content["variants"]["plain"]["dataset"] = "squares"
    with pytest.raises(UsageError, match=r"yaml: ideas\.width\.without: is trained on squares, but wide on shapes"):
        toy.paper(content=content)


def test_a_paper_in_order_is_read(toy):
    paper = toy.paper()
    assert [claim.value for claim in paper.claims] == [0.95, 30.1]
    assert paper.variant(None) == "plain"


def test_an_unknown_paper_or_variant_gets_a_suggestion(toy):
    paper = toy.paper()
    assert find_papers() == ["alpha_2001"]
    with pytest.raises(UsageError, match="Did you mean alpha_2001?"):
        load_paper("alpha2001")
    with pytest.raises(UsageError, match="Did you mean wide?"):
        paper.variant("wid")


@pytest.mark.parametrize(
    ("changes", "margin"),
    [
        # The paper's own spread: two standard deviations, two significant digits.
        ({"spread": {"sd": 0.12}}, 0.24),
        ({"spread": {"sd": 0.123}}, 0.25),
        ({"spread": {"sd": 0.001}}, 0.01),  # not less than the last printed digit
        # Counted: 1.96 binomial standard errors on the split's examples.
        ({"reported": "0.95"}, 0.19),
        ({"reported": "0.35", "metric": "train_error"}, 0.047),
        ({"reported": "2.1"}, 0.28),
        ({"reported": "97.90", "metric": "oa"}, 0.28),
        ({"reported": "5"}, 1.0),  # 0.43, less than the last printed digit
        ({"reported": "0.00"}, 0.01),
        ({"reported": "100.0"}, 0.1),
        # Nothing counted: the metric's fixed margin.
        ({"reported": "30.10", "metric": "psnr"}, 0.05),
        ({"reported": "30.1", "metric": "psnr"}, 0.1),
        ({"reported": "30", "metric": "psnr"}, 1.0),
        ({"reported": "0.9134", "metric": "ssim"}, 0.005),
        ({"reported": "0.731", "metric": "map_i2t"}, 0.02),
        ({"reported": "0.7", "metric": "map_avg"}, 0.1),
        ({"reported": "0.731", "metric": "map_t2i", "spread": {"sd": 0.004, "runs": 5}}, 0.008),
    ],
)
def test_the_rule_for_margins(toy, changes, margin):
    claim = toy.claim(**changes)
    examples = toy.paper().examples(claim.variant, claim.metric)
    assert tolerance_by_rule(claim, examples) == pytest.approx(margin, rel=1e-12)


def with_classes(content) -> None:
    """Two classes of 100 and 300 examples; half of each tests."""
    content["variants"]["plain"]["splits"] = {"train": 200, "test": 200}
    content["class_sizes"] = {"shapes": [100, 300]}


def test_average_accuracy_is_as_coarse_as_its_small_classes_make_it(toy):
    """With p right in classes of 50 and 150, its variance is p(1 - p)(1/50 + 1/150)/4 = p(1 - p)/150."""
    content = toy.paper_content()
    with_classes(content)
    content["claims"] = [content["claims"][0] | {"metric": "aa", "reported": "90.0", "tolerance": 4.8}]
    paper = toy.paper(content=content)
    assert [paper.examples("plain", metric) for metric in ("oa", "aa")] == [200, pytest.approx(150)]
    assert paper.count("plain", "aa") == pytest.approx(100 / 150)
    draws = np.random.default_rng(0).binomial([50, 150], 0.9, (100_000, 2)) / [50, 150]
    assert 100 * draws.mean(axis=1).std() == pytest.approx(4.8 / 1.96, rel=0.01)


def test_average_accuracy_goes_by_the_split_without_class_sizes(toy):
    assert toy.paper().examples("plain", "aa") == 10000


def test_where_nothing_is_counted_a_count_is_the_last_digit_of_the_tables(toy):
    assert [toy.paper().count("plain", metric) for metric in ("test_error", "psnr", "map_avg")] == [0.01, 0.01, 0.001]


PATCHES = {
    "means": "{set}, cut to {size} pixels",
    "each": {"set": {"s9": "Set9", "big": "the large ones"}, "size": [1, "2x2"]},
}


def test_protocols_that_differ_in_words_are_written_out_and_said_once(toy):
    content = toy.paper_content()
    content["protocols"]["{set}-{size}"] = PATCHES
    content["claims"][0]["protocol"] = "big-2x2"
    paper = toy.paper(content=content)
    assert list(paper.protocols) == ["last", "best", "s9-1", "s9-2x2", "big-1", "big-2x2"]
    assert paper.protocols["big-2x2"] == "the large ones, cut to 2x2 pixels"
    said = "{set}, cut to {size} pixels; {set}: s9 Set9, big the large ones"
    assert paper.meanings({"last", "big-2x2", "s9-1"}) == {"last": "the last weights", "{set}-{size}": said}
    assert paper.meanings({"best"}) == {"best": "the best weights"}


def test_a_variant_is_trained_on_a_dataset_that_has_a_stand_in(toy):
    test_set = "{title: T, page: P, terms: none, folder: squares, editions: {}}"
    (paths.PASSPORTS / "squares.yaml").write_text(test_set)
    content = toy.paper_content()
    content["variants"]["wide"]["dataset"] = "squares"
    with pytest.raises(UsageError, match=r"variants\.wide\.dataset: squares has no stand-in"):
        toy.paper(content=content)
