"""Which seed's weights are published, and when they are left as they are."""

import pytest
import torch

from common.base import paths
from common.base.errors import CheckFailed, NumbersError, UsageError
from common.claims.generations import generations_file
from common.publishing import publish
from common.publishing.measure import weights_faults
from common.publishing.publish import publish_runs, publish_weights
from common.training.evaluation import Measured
from common.training.records import published_records, write_record
from common.training.weights import load_weights, named_before_rounding, save_weights, weights_hash


@pytest.fixture
def published(toy, record):
    """Publishes records by seed and value, and leaves their weights in runs/: a tensor of the value."""

    def published(*values: float, first=0, variant="plain", edition="official", **how):
        for seed, value in enumerate(values, first):
            weights = {"w": torch.tensor([value])}
            folder = paths.RUNS / "alpha_2001" / variant / f"full-{edition}" / f"seed-{seed}"
            save_weights(weights, folder / "weights.safetensors")
            named = {"sha256": weights_hash(weights)}
            toy.publish(record(seed, value, variant=variant, edition=edition, weights=named, **how))

    return published


def weights_of(variant: str = "plain") -> float | None:
    """The value of the published weights."""
    file = paths.WEIGHTS / "alpha_2001" / f"{variant}.safetensors"
    return load_weights(file)["w"].item() if file.exists() else None


def owners() -> list[tuple[str, str, int]]:
    """The records that name published weights."""
    return [(r.variant, r.data.edition, r.seed) for r in published_records() if r.weights and r.weights.file]


def test_the_seed_nearest_the_mean_is_published_and_its_record_says_so(toy, published, failed_record):
    published(0.25, 1.0, 0.75)
    toy.publish(failed_record(3))
    publish_weights(toy.paper(), "plain", paths.RUNS)
    assert weights_of() == 0.75 and owners() == [("plain", "official", 2)]


def test_another_seed_that_comes_nearer_takes_the_place(toy, published):
    published(0.25, 1.0)
    publish_weights(toy.paper(), "plain", paths.RUNS)
    assert owners() == [("plain", "official", 0)]
    published(0.75, first=2)
    publish_weights(toy.paper(), "plain", paths.RUNS)
    assert weights_of() == 0.75 and owners() == [("plain", "official", 2)]


def test_a_variant_without_claims_has_weights_too(toy, published):
    content = toy.paper_content()
    content["claims"] = []
    published(0.25, 1.0, 0.5, variant="wide", metric="train_error", protocol="best")
    publish_weights(toy.paper(content=content), "wide", paths.RUNS)
    assert weights_of("wide") == 0.5 and owners() == [("wide", "official", 2)]


def test_editions_are_not_mixed_and_the_one_that_counts_goes_first(toy, published):
    published(8.0, 9.0, 100.0, edition="resized")
    published(0.25, 1.0, 0.75)
    publish_weights(toy.paper(), "plain", paths.RUNS)
    assert weights_of() == 0.75 and owners() == [("plain", "official", 2)]


def test_where_the_run_is_not_here_the_weights_are_left_as_they_are(toy, published, capsys, tmp_path):
    published(0.25, 1.0, 0.75)
    publish_weights(toy.paper(), "plain", paths.RUNS)
    published(0.7, first=3)
    publish_weights(toy.paper(), "plain", tmp_path / "elsewhere")
    assert weights_of() == 0.75
    assert "weights of plain are left as they are: those of seed 3 are not in" in capsys.readouterr().err


def test_large_weights_stay_unpublished(toy, published, monkeypatch):
    monkeypatch.setattr(publish, "LARGEST_WEIGHTS", 10)
    published(0.25, 1.0, 0.75)
    publish_weights(toy.paper(), "plain", paths.RUNS)
    assert weights_of() is None and owners() == []


@pytest.fixture
def rounding(toy, monkeypatch):
    """The paper with a variant whose weights are published though they are large; they measure their own value."""

    def measure(paper, weights, recipe, data, device):
        assert (weights["w"].dtype, device) == (torch.float32, "cpu")
        return Measured({"last": {"test_error": weights["w"].item()}})

    monkeypatch.setattr(publish, "LARGEST_WEIGHTS", 10)
    monkeypatch.setattr(publish, "recorded_data", lambda *_: None)
    monkeypatch.setattr(publish, "recorded_recipe", lambda *_: None)
    monkeypatch.setattr(publish, "measure", measure)
    return toy.paper(content=toy.paper_content() | {"weights_of": "plain"})


def test_large_weights_of_the_named_variant_are_published_in_float16(rounding, published, capsys):
    published(0.2, 1.0, 0.7)
    published(0.2, 1.0, 0.7, variant="wide")
    for variant in ("plain", "wide"):
        assert publish_weights(rounding, variant, paths.RUNS) == (variant == "plain")
    assert owners() == [("plain", "official", 2)] and weights_of("wide") is None
    assert "weights of wide stay unpublished: over 1e-05 MB" in capsys.readouterr().err
    half = torch.tensor(0.7).half().item()
    assert weights_of() == half != torch.tensor(0.7).item()
    (record,) = [record for record in published_records() if record.weights.file]
    assert named_before_rounding(paths.ROOT / record.weights.file) == record.weights.sha256
    assert record.metrics_of_file == {"last": {"test_error": half}}
    assert weights_faults(record, paths.ROOT / record.weights.file) == []
    before = record.path().read_bytes()
    assert not publish_weights(rounding, "plain", paths.RUNS) and record.path().read_bytes() == before


def test_another_seed_takes_the_place_in_float16_too(rounding, published):
    published(0.2, 1.0)
    publish_weights(rounding, "plain", paths.RUNS)
    published(0.7, first=2)
    publish_weights(rounding, "plain", paths.RUNS)
    assert owners() == [("plain", "official", 2)]
    assert [record.weights.float16 is None for record in published_records()] == [True, True, False]
    assert b"float16" not in published_records()[0].path().read_bytes()


def test_small_weights_of_the_named_variant_are_published_as_they_are(rounding, published, monkeypatch):
    monkeypatch.setattr(publish, "LARGEST_WEIGHTS", 1000)
    published(0.2, 1.0, 0.7)
    publish_weights(rounding, "plain", paths.RUNS)
    assert weights_of() == torch.tensor(0.7).item() and owners() == [("plain", "official", 2)]
    assert published_records()[2].weights.float16 is None


@pytest.mark.parametrize(
    ("value", "largest", "error", "said"),
    [
        (70000.0, 10, NumbersError, "w holds 70000, but float16 ends at 65504"),
        (0.7, 1, UsageError, r"0.0 MB in float16: up to 1e-06 MB are published"),
    ],
)
def test_what_float16_cannot_hold_stays_unpublished(rounding, published, monkeypatch, value, largest, error, said):
    monkeypatch.setattr(publish, "LARGEST_ROUNDED", largest)
    published(value, metric="psnr")
    with pytest.raises(error, match=said):
        publish_weights(rounding, "plain", paths.RUNS)
    assert weights_of() is None and owners() == []


def test_what_is_lost_below_the_smallest_float16_is_told(rounding, published, capsys):
    published(1e-9)
    publish_weights(rounding, "plain", paths.RUNS)
    assert "weights of plain: 1 are too small for float16 and become 0" in capsys.readouterr().err
    assert weights_of() == 0


@pytest.mark.parametrize("records", [0, 1])
def test_without_a_finished_seed_there_is_nothing_to_publish(toy, failed_record, records):
    toy.publish(*(failed_record(seed) for seed in range(records)))
    publish_weights(toy.paper(), "plain", paths.RUNS)
    assert weights_of() is None


@pytest.fixture
def again(toy, record, monkeypatch):
    """Publishes two seeds of a variant, and leaves other runs of some of them in runs/."""
    monkeypatch.setattr(publish, "run_faults", lambda paper, of: [])

    def again(variant: str, *seeds: int) -> None:
        toy.publish(*(record(seed, 0.9, variant=variant) for seed in (0, 1)))
        for seed in seeds:
            file = paths.RUNS / "alpha_2001" / variant / "full-official" / f"seed-{seed}" / "record.json"
            write_record(record(seed, 0.8, variant=variant), file)

    return again


def test_no_record_is_replaced_whose_new_weights_measure_something_else(toy, again, monkeypatch):
    again("plain", 0, 1)
    before = published_records()

    def ready(paper, record, path, data_dir):
        if record.seed == 1:
            raise CheckFailed("measured again as 0.7")
        return record

    monkeypatch.setattr(publish, "_ready", ready)
    with pytest.raises(CheckFailed, match="measured again as 0.7"):
        publish_runs(toy.paper(), paths.RUNS, None, replace=True)
    assert published_records() == before and not generations_file().exists()


def test_nothing_is_replaced_unless_everything_can_be(toy, again):
    """Of two variants that were run again, one lacks a seed: the records of the other stay where they are too."""
    again("plain", 0, 1)
    again("wide", 0)
    before = published_records()
    with pytest.raises(UsageError, match=r"wide \(official\) is replaced as a whole: run seeds 1 again too."):
        publish_runs(toy.paper(), paths.RUNS, None, replace=True)
    assert published_records() == before and not generations_file().exists()


def test_a_seed_left_out_is_told(toy, record, monkeypatch):
    """What `verify` would call wrong does not pass as published."""
    monkeypatch.setattr(publish, "publish_one", lambda *_: False)
    monkeypatch.setattr(publish, "why_not", lambda *_: "")
    monkeypatch.setattr("common.pages.tables.rebuild", list)
    toy.publish(record(0), record(2))
    write_record(record(2), paths.RUNS / "alpha_2001" / "plain" / "full-official" / "seed-2" / "record.json")
    with pytest.raises(CheckFailed, match="seeds 0, 2 leave one out. Run it too"):
        publish_runs(toy.paper(), paths.RUNS, None)
