"""Which seed's weights are published, and when they are left as they are."""

import pytest
import torch

from common.base import paths
from common.base.errors import UsageError
from common.claims.generations import generations_file
from common.publishing import publish
from common.publishing.publish import publish_runs, publish_weights
from common.training.records import published_records, write_record
from common.training.weights import load_weights, save_weights, weights_hash


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


@pytest.mark.parametrize("records", [0, 1])
def test_without_a_finished_seed_there_is_nothing_to_publish(toy, failed_record, records):
    toy.publish(*(failed_record(seed) for seed in range(records)))
    publish_weights(toy.paper(), "plain", paths.RUNS)
    assert weights_of() is None


def test_nothing_is_set_aside_unless_everything_can_be(toy, record, monkeypatch):
    """Of two variants that were run again, one lacks a seed: the records of the other stay where they are too."""
    monkeypatch.setattr(publish, "run_faults", lambda paper, of: [])
    for variant, again in (("plain", (0, 1)), ("wide", (0,))):
        toy.publish(*(record(seed, 0.9, variant=variant) for seed in (0, 1)))
        for seed in again:
            file = paths.RUNS / "alpha_2001" / variant / "full-official" / f"seed-{seed}" / "record.json"
            write_record(record(seed, 0.8, variant=variant), file)
    before = published_records()
    with pytest.raises(UsageError, match=r"wide \(official\) is replaced as a whole: run seeds 1 again too."):
        publish_runs(toy.paper(), paths.RUNS, None, replace=True)
    assert published_records() == before and not generations_file().exists()
