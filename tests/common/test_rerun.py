"""What training a published seed again says: by its bits on the same kind of machine, else by the seeds' spread."""

import pytest

from common.base import paths
from common.base.errors import DataAbsent, UsageError
from common.data.passports import file_sha256
from common.publishing import rerun
from common.publishing.rerun import compare, records_of

OTHER_BITS = {"weights": {"sha256": "ff" * 32}}
WHOSE = "the sources of 1212121"


@pytest.fixture
def published(toy, record):
    """The record of seed 0, which is published with two others."""
    seeds = [record(seed, value) for seed, value in enumerate((0.90, 0.95, 1.00))]
    toy.publish(*seeds)
    return seeds[0]


def elsewhere(published, **changes):
    """The environment of a run of another torch, or with other changes."""
    return {"environment": published.environment.model_dump() | (changes or {"torch": "2.1.0"})}


def found(toy, published, again) -> tuple[bool | None, str]:
    stands, text = compare(toy.paper(), published, again, WHOSE)
    assert text.startswith(f"trained again by {WHOSE}")
    return stands, text.removeprefix(f"trained again by {WHOSE}")


def test_the_same_bits_and_numbers_confirm_a_record_whatever_the_machine(toy, published, record):
    same = ": the very bits of the record"
    assert found(toy, published, record(0, 0.90)) == (True, same)
    assert found(toy, published, record(0, 0.90, **elsewhere(published))) == (True, same)
    other = f"{same}, but test_error (last) is 0.9, recorded 0.8"
    assert found(toy, record(0, 0.80), record(0, 0.90)) == (False, other)
    curves = {"curves": {"loss": [1.0, 0.2]}}
    assert found(toy, published, record(0, 0.90, **curves)) == (False, f"{same}, but its curves differ")
    assert found(toy, published, record(0, 0.90, **curves, **elsewhere(published))) == (True, same)


def test_other_bits_on_the_same_kind_of_machine_are_wrong_whatever_the_numbers(toy, published, record):
    said = ", on the same kind of machine: other bits than the record's"
    assert found(toy, published, record(0, 0.90, **OTHER_BITS)) == (False, said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"torch": "2.1.0"}, "torch 2.1.0, not 2.0.0"),
        ({"instruction_set": "AVX2", "threads": 4}, "instruction set AVX2, not None; threads 4, not 1"),
        ({"compiled": "kernel.c by cc"}, "compiled kernel.c by cc, not None"),
    ],
)
def test_on_another_machine_the_numbers_are_compared_with_the_seeds(toy, published, record, changes, said):
    again = record(0, 1.10, **OTHER_BITS, **elsewhere(published, **changes))
    kind = f": other bits, but not on the same kind of machine ({said}); by the weaker check, "
    assert found(toy, published, again) == (True, f"{kind}every number lies where one more run of the 3 seeds would")


def test_numbers_far_from_the_seeds_are_wrong_on_any_machine(toy, published, record):
    stands, text = found(toy, published, record(0, 2.0, **OTHER_BITS, **elsewhere(published)))
    assert stands is False and "by the weaker check, test_error (last) is 2, not 0.7" in text


def test_the_more_numbers_the_wider_the_interval_of_each(toy, record):
    """So that all of an honest run's lie inside in 95 of 100 cases."""
    metrics = [{"last": {"test_error": value, "train_error": value}} for value in (0.90, 0.95, 1.00)]
    toy.publish(*(record(seed, metrics=each) for seed, each in enumerate(metrics)))
    one, two = record(0, 1.25), record(0, metrics={"last": {"test_error": 1.25, "train_error": 1.0}})
    for again, stands in ((one, False), (two, True)):
        there = again.model_copy(update={"weights": again.weights.model_copy(update={"sha256": "ff" * 32})})
        there = there.model_copy(update={"environment": there.environment.model_copy(update={"torch": "2.1.0"})})
        assert compare(toy.paper(), record(0, metrics=metrics[0]), there, WHOSE)[0] is stands


def test_other_sources_and_an_earlier_machine_leave_the_weaker_check(toy, published, record):
    code = {"commit": None, "committed": False, "sources": "00" * 32}
    stands, text = found(toy, published, record(0, 0.90, **OTHER_BITS, code=code))
    assert stands and "(other sources); by the weaker check" in text
    moved = published.model_copy(update={"earlier_environments": [published.environment]})
    stands, text = found(toy, moved, record(0, 0.90, **OTHER_BITS))
    assert stands and "(the record was begun on yet another); by the weaker check" in text


def test_a_single_seed_has_no_spread_to_compare_with(toy, record):
    published = record(0)
    toy.publish(published)
    stands, text = found(toy, published, record(0, **OTHER_BITS, **elsewhere(published)))
    assert stands is None and text.endswith("nothing: too few seeds are published to have a spread")


def test_another_recipe_is_wrong(toy, published, record):
    stands, text = found(toy, published, record(0, recipe_hash="cd" * 32))
    assert stands is False and text == ", whose recipe is not the recorded one"


def test_a_run_that_fails_is_wrong_only_on_the_same_kind_of_machine(toy, published, failed_record):
    assert found(toy, published, failed_record(0)) == (False, ": failed (the loss is nan)")
    stands, text = found(toy, published, failed_record(0, **elsewhere(published)))
    assert stands is None and text.startswith(": failed (the loss is nan), but not on the same kind of machine")


@pytest.fixture
def trained(monkeypatch):
    """The records that were trained again, and each came out as it is."""
    asked = []
    monkeypatch.setattr(rerun, "_trained", lambda record, *_: asked.append(record) or record)
    return asked


def test_of_several_editions_the_one_that_is_here_is_trained_again(toy, record, failed_record, trained):
    folder = toy.put_data(paths.DATA)
    files = {path.name: file_sha256(path) for path in folder.iterdir()}
    here = record(0, data={"dataset": "shapes", "edition": "official", "files": files, "split": "ef" * 32})
    toy.publish(record(0, edition="bundle"), here, record(1, edition="bundle"), failed_record(2))
    assert rerun.rerun(toy.paper(), records_of(toy.paper(), "plain", 0), None)[0] and trained == [here]
    with pytest.raises(DataAbsent, match="was measured on different files"):
        rerun.rerun(toy.paper(), records_of(toy.paper(), "plain", 1), None)
    for seed in (2, 3):
        with pytest.raises(UsageError, match=f"No finished record of seed {seed} of plain is published."):
            records_of(toy.paper(), "plain", seed)


def test_without_a_history_todays_sources_are_used(toy, published, capsys):
    with rerun._sources(published) as (tree, whose):
        assert (tree, whose) == (paths.ROOT, "today's sources")
    said = capsys.readouterr().err
    assert "there is no git history here to ask" in said and "today's sources are used" in said
