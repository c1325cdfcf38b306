"""Weights are measured again on the very data that their record names, or not at all."""

import json
from types import SimpleNamespace
from typing import Literal

import pydantic.dataclasses
import pytest
import torch

from common.base import paths
from common.base.errors import DataAbsent, UsageError
from common.claims.papers import Paper
from common.data.passports import file_sha256
from common.publishing import measure
from common.publishing.measure import (
    _print_classes,
    in_the_record,
    measure_files,
    measure_published,
    recipe_of,
    record_weights,
    recorded_data,
    variant_of,
    weights_faults,
)
from common.training import determinism
from common.training.evaluation import Measured
from common.training.weights import rounded, save_weights, weights_hash


@pytest.mark.parametrize("there", ["official", "resized"])
def test_a_record_is_measured_again_on_its_own_edition_only(toy, record, there):
    folder = toy.put_data(paths.DATA, there)
    files = {path.name: file_sha256(path) for path in folder.iterdir()}
    named = {"dataset": "shapes", "files": files, "split": "ab"}
    own = record(data=named | {"edition": there})
    assert recorded_data(toy.paper(), own, None).folder == folder
    other = record(data=named | {"edition": "bundle", "files": {"shapes.npz": "cd"}})
    said = rf"shapes \({there}\) is in .*; alpha_2001/plain/bundle/seed-0 was measured on different files \(bundle\)"
    with pytest.raises(DataAbsent, match=said):
        recorded_data(toy.paper(), other, None)


def test_published_weights_whose_data_is_not_here_are_left_out(toy, record, monkeypatch, capsys):
    folder = toy.put_data(paths.DATA)
    files = {path.name: file_sha256(path) for path in folder.iterdir()}
    named = {"dataset": "shapes", "files": files, "split": "ab"}
    own = record(data=named | {"edition": "official"})
    other = record(variant="wide", data=named | {"edition": "bundle", "files": {"shapes.npz": "cd"}})
    published = {"plain.safetensors": own, "wide.safetensors": other}
    monkeypatch.setattr(measure, "with_weights", lambda paper: published)
    monkeypatch.setattr(measure, "measure_record", lambda *_: Measured({"last": {"test_error": 1.0}}))
    measure_published(toy.paper(), None, None, "cpu", as_json=True)
    out, err = capsys.readouterr()
    assert [of["weights"] for of in json.loads(out)] == ["plain.safetensors"]
    assert "left out: shapes (official) is in" in err
    with pytest.raises(DataAbsent, match="No published weights of alpha_2001 can be measured on what is here"):
        measure_published(toy.paper(), "wide", None, "cpu", as_json=True)


def holds(path, run: str | None, recipe: dict | None = None):
    return save_weights({"w": torch.zeros(1)}, path, run, recipe)


@pytest.mark.parametrize(
    ("wanted", "run", "used"),
    [
        (None, None, "plain"),
        ("wide", None, "wide"),
        (None, "alpha_2001/plain/seed-0", "plain"),
        (None, "alpha_2001/wide/seed-0", "wide"),
        ("wide", "alpha_2001/wide/seed-0", "wide"),
    ],
)
def test_weights_are_measured_as_the_variant_asked_for_or_named_in_them(toy, tmp_path, wanted, run, used):
    assert variant_of(toy.paper(), wanted, holds(tmp_path / "file", run)) == used


@pytest.mark.parametrize(
    ("wanted", "run", "whose"),
    [
        ("plain", "alpha_2001/wide/seed-0", "alpha_2001 / wide, not of alpha_2001 / plain"),
        ("wide", "beta_2002/wide/seed-0", "beta_2002 / wide, not of alpha_2001 / wide"),
        (None, "beta_2002/wide/seed-0", "beta_2002 / wide, not of alpha_2001 / plain"),
        (None, "alpha_2001/lost/seed-0", "alpha_2001 / lost, not of alpha_2001 / plain"),
    ],
)
def test_weights_of_another_paper_or_variant_are_refused(toy, tmp_path, wanted, run, whose):
    paper, variant, _ = run.split("/")
    with pytest.raises(UsageError) as told:
        variant_of(toy.paper(), wanted, holds(tmp_path / "file", run))
    advice = f"Measure them with `eval {paper} --variant {variant}`."
    assert str(told.value) == f"{tmp_path / 'file'} holds weights of {whose}. {advice}"


@pytest.fixture
def recipe(monkeypatch):
    """The recipe that the toy paper's `train` has."""

    @pydantic.dataclasses.dataclass(frozen=True)
    class Recipe:
        pooling: Literal["mean", "sum"] = "mean"
        rates: tuple[tuple[int, float], ...] = ((2, 0.1),)

    train = SimpleNamespace(Recipe=Recipe, recipe=lambda variant, preset: Recipe())
    monkeypatch.setattr(Paper, "module", lambda paper, name: train)
    return Recipe


def test_weights_are_measured_under_the_recipe_that_made_them(toy, tmp_path, recipe):
    """Their names and shapes are the same, whatever the pooling."""
    paper, run, said = toy.paper(), "alpha_2001/plain/seed-0", {"pooling": "sum", "rates": [[2, 0.1]]}
    assert recipe_of(paper, "plain", holds(tmp_path / "file", run)) == recipe()
    assert recipe_of(paper, "plain", holds(tmp_path / "file", run, said)) == recipe("sum")
    assert recipe_of(paper, "plain", holds(tmp_path / "file", run, said | {"pooling": "mean"})) == recipe()


@pytest.mark.parametrize(
    ("said", "why"),
    [({"pooling": "max"}, "pooling: Input should be 'mean' or 'sum'"), ({"stride": 2}, "stride: not a field")],
)
def test_weights_of_a_recipe_that_is_no_longer_known_are_refused(toy, tmp_path, recipe, said, why):
    file = holds(tmp_path / "file", "alpha_2001/plain/seed-0", said)
    with pytest.raises(UsageError, match=rf"file was trained with a different form of recipe \({why}\).$"):
        recipe_of(toy.paper(), "plain", file)


def test_classes_are_reported_with_examples_and_their_confusions(capsys):
    _print_classes([[8, 2, 0], [0, 0, 0], [1, 4, 15]], ["corn", "oats", "woods"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for expected in ("corn 10 80.0 % oats (2)", "oats 0 not scored –", "woods 20 75.0 % oats (4)"):
        assert expected in lines
    assert "Confusion matrix" in lines and "woods 1 4 15" in lines


def test_a_matrix_too_wide_for_a_terminal_is_not_printed(capsys):
    _print_classes([[1] * 11] * 11, [f"class {number}" for number in range(11)])
    assert "Confusion matrix" not in capsys.readouterr().out


@pytest.fixture
def flags_seen(toy, monkeypatch):
    """What `evaluate` finds of the flags when the weights of a toy paper are measured from the command line."""
    seen = []
    train = SimpleNamespace(DEVICES=("cpu",), recipe=lambda variant, preset: None)
    evaluation = SimpleNamespace(evaluate=lambda *words: seen.append(determinism.current_flags()) or Measured({}))
    modules = {"train": train, "eval": evaluation}
    monkeypatch.setattr(Paper, "module", lambda paper, name: modules[name])
    return seen


def test_weights_are_measured_with_the_deterministic_set_up(toy, tmp_path, flags_seen):
    toy.put_data(paths.DATA)
    wrong = {"deterministic_algorithms": False, "cudnn_deterministic": False, "cudnn_benchmark": True, "tf32": True}
    torch.set_deterministic_debug_mode("default")
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    assert {name: determinism.current_flags()[name] for name in wrong} == wrong
    measure_files(toy.paper(), None, [holds(tmp_path / "file", None)], None, "cpu", as_json=True)
    assert flags_seen == [determinism.FLAGS]


@pytest.mark.parametrize("before", [None, "56" * 32])
def test_it_is_said_of_a_users_file_that_it_is_in_float16(toy, tmp_path, flags_seen, capsys, before):
    toy.put_data(paths.DATA)
    weights = {"w": torch.zeros(1)}
    file = save_weights(weights, tmp_path / "file", "alpha_2001/plain/seed-0", rounded_from=before)
    measure_files(toy.paper(), None, [file], None, "cpu", as_json=True)
    assert (f"{file} holds weights rounded to float16." in capsys.readouterr().err) == bool(before)


def test_a_file_in_float16_is_set_beside_what_its_record_has_for_it(rounded_record, record):
    assert in_the_record(rounded_record, "last", "test_error", 0.97) == "0.97 (seed 0 in float16, the same)"
    assert in_the_record(rounded_record, "last", "test_error", 0.95) == "0.97 (seed 0 in float16, DIFFERENT)"
    assert in_the_record(record(), "last", "test_error", 0.95) == "0.95 (seed 0, the same)"


def test_a_file_in_float16_is_that_of_its_record_or_refused(toy, record):
    """Its bytes, and the hash before rounding; rounded weights that the record knows nothing of are others."""
    weights = {"w": torch.tensor([0.7])}
    before, file = weights_hash(weights), toy.root / "weights.safetensors"
    save_weights(rounded(weights), file, "alpha_2001/plain/seed-0", rounded_from=before)
    float16 = {"sha256": file_sha256(file), "metrics": {"last": {"test_error": 0.97}}}
    own = record(weights={"sha256": before, "file": "weights.safetensors", "float16": float16})
    assert weights_faults(own, file) == []
    assert record_weights(own, file)["w"].dtype == torch.float32
    other = [f"holds weights other than those of {own.run}"]
    assert weights_faults(record(weights={"sha256": before}), file) == other
    of_others = record(weights={"sha256": "56" * 32, "file": "weights.safetensors", "float16": float16})
    assert weights_faults(of_others, file) == other
    with pytest.raises(UsageError, match="does not hold the weights that its record names"):
        record_weights(record(weights={"sha256": before}), file)
    save_weights(rounded({"w": torch.tensor([0.71])}), file, "alpha_2001/plain/seed-0", rounded_from=before)
    assert weights_faults(own, file) == other
