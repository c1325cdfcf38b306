"""The weights for ImageNet that torchvision released: how their file is read."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models import GoogLeNet_Weights

from common.base.errors import UsageError
from common.claims.papers import load_paper
from common.data.passports import LocatedData
from common.training.determinism import generator
from common.training.weights import fit_weights
from papers.googlenet import imagenet
from papers.googlenet.eval import evaluate, predictor
from papers.googlenet.imagenet import MEAN, VARIANTS
from papers.googlenet.model import GoogLeNet
from papers.googlenet.released import read
from papers.googlenet.sgd import as_input
from tests.papers.googlenet import few, torchvisions

PAPER = load_paper("googlenet")
RELEASED = GoogLeNet_Weights.IMAGENET1K_V1
VARIANT = "imagenet-torchvision"


def saved(folder, network: nn.Module):
    """As the oldest files are: they do not count the batches."""
    torch.save({n: t for n, t in network.state_dict().items() if "num_batches" not in n}, folder / "weights.pth")
    return folder / "weights.pth"


def test_a_network_read_from_its_file_says_what_torchvisions_says(tmp_path):
    """Theirs, with released weights, takes pixels that are normalised and undoes that (`transform_input`)."""
    theirs = torchvisions()
    theirs.transform_input = True
    state = read(saved(tmp_path, theirs), VARIANTS[VARIANT])
    ready = predictor(state, VARIANTS[VARIANT], lambda: pytest.fail("no training data is needed"))
    mean = state.pop(MEAN)
    ours = nn.ModuleList([GoogLeNet(1000, "torchvision", heads=False)])
    fit_weights(ours, state)
    pixels = torch.randint(256, (2, 3, 224, 224), generator=generator(0, "pixels"), dtype=torch.uint8)
    with torch.inference_mode():
        expected = theirs(RELEASED.transforms(resize_size=224)(pixels))
        said = ours[0].eval()(as_input(pixels, mean, VARIANTS[VARIANT]))
        assert torch.equal(ready.eval()(pixels), said.softmax(1))
    assert expected.std() > 0.1
    torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_it_is_measured_as_any_network_is(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "load", few)
    stand_in = LocatedData("imagenet", "stand-in", None, {})
    network, recipe = torchvisions(), replace(VARIANTS[VARIANT], crops=(1, 10))
    network.fc = nn.Linear(1024, few(stand_in).classes)
    metrics = evaluate(read(saved(tmp_path, network), recipe), recipe, stand_in, "cpu").metrics
    assert set(metrics) == {"1-crop", "10-crop"}


def test_the_file_is_the_one_that_torchvision_names_and_checks_no_claim():
    (released,) = PAPER.released
    file = PAPER.dataset(released.dataset).editions["official"].files[released.file]
    assert file.urls == [RELEASED.url] and RELEASED.url.endswith(f"-{file.sha256_begins}.pth")
    assert released.variants == [VARIANT] and VARIANTS[VARIANT].network == "torchvision"
    assert not [claim for claim in PAPER.claims if claim.variant == VARIANT]


@pytest.mark.parametrize("content", [b"", b"no weights", {"fc.weight": torch.zeros(1)}])
def test_a_file_laid_out_otherwise_is_refused(tmp_path, content):
    file = tmp_path / "weights.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(UsageError, match=r"weights\.pth is not laid out as torchvision's weights are \(.+\)\.$"):
        read(file, VARIANTS[VARIANT])


def test_the_page_has_the_errors_that_torchvision_publishes():
    published = RELEASED.meta["_metrics"]["ImageNet-1K"]
    top1, top5 = (100 - published[f"acc@{guesses}"] for guesses in (1, 5))
    page = (PAPER.folder / "README.md").read_text(encoding="utf-8")
    assert f"| torchvision's | {top1:.2f} | {top5:.2f} |" in page
