"""Published and released weights from Python: torch.hub and load_pretrained."""

import runpy

import pytest
import torch

from common.base import paths
from common.base.metrics import error_percent
from common.claims.papers import find_papers, load_paper
from common.publishing.checks import OTHER_PROCESSOR
from common.publishing.measure import with_weights
from common.publishing.pretrained import load_pretrained, loadable
from common.training.records import published_released
from common.training.weights import named_recipe, named_run
from tests.real_data import real_data

LOADABLE = [(name, variant) for name in find_papers() for variant in loadable(load_paper(name))]
PUBLISHED = [(name, *pair) for name in find_papers() for pair in with_weights(load_paper(name)).items()]


@pytest.mark.parametrize(("paper", "file", "record"), PUBLISHED)
def test_published_weights_say_of_which_run_and_recipe_they_are(paper, file, record):
    assert named_run(paths.ROOT / file) == f"{paper}/{record.variant}/seed-{record.seed}"
    assert named_recipe(paths.ROOT / file) == record.recipe


def test_the_hub_has_an_entry_for_each_variant_with_weights():
    hub = runpy.run_path(str(paths.ROOT / "hubconf.py"))
    entries = [name for name, value in hub.items() if callable(value) and not name.startswith("_")]
    assert sorted(entries) == sorted(["load_pretrained", *(variant for _, variant in LOADABLE)])  # no name comes twice
    assert hub["lenet5"].__doc__.startswith("lenet5_1998 / lenet5: ")


def test_lenet5_is_had_from_the_hub_without_any_data():
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    penalties = torch.hub.load(str(paths.ROOT), "lenet5", source="local")(images)
    assert penalties.shape == (2, 10) and torch.equal(penalties, load_pretrained("lenet5_1998", "lenet5")(images))


@pytest.mark.parametrize("record", [of for name, _, of in PUBLISHED if name == "lenet5_1998"], ids=lambda r: r.variant)
def test_lenet5_classifies_mnist_with_the_published_error(record):
    from papers.lenet5_1998.data import load

    digits = load(real_data(load_paper("lenet5_1998").dataset("mnist")))
    model = torch.hub.load(str(paths.ROOT), record.variant, source="local")
    assert not model.training
    with torch.inference_mode():
        predicted = torch.cat([model(part).argmin(1) for part in digits.test_images.split(1000)])
    assert error_percent(predicted, digits.test_labels) == record.metrics["last"]["test_error"]


def test_released_weights_remove_noise_as_their_record_says():
    from papers.dncnn.data import load
    from papers.dncnn.noisy_sets import labels_of, noisy_groups
    from papers.dncnn.scores import psnr, to_8bit

    paper = load_paper("dncnn")
    real_data(paper.dataset("dncnn_weights"))
    pictures = load(real_data(paper.dataset("set12")), held_out=False).tests["set12"]
    labels = labels_of([next(iter(pictures.values()))], channels=1)
    ((_, noisy, label),) = noisy_groups(labels, 25, "cpu")
    model = load_pretrained("dncnn", "sigma25-authors")
    (record,) = [of for of in published_released("dncnn") if of.name == "dncnn/released/sigma25/set12"]
    recorded = record.metrics["set12-01-sigma25"]["psnr"]
    assert psnr(to_8bit(model(noisy)), label).item() == pytest.approx(recorded, rel=OTHER_PROCESSOR)
