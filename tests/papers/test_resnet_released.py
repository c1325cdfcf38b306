"""The weights for ImageNet that torchvision released: how its files are read."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from common.base.errors import UsageError
from common.claims.papers import load_paper
from common.data.colours import Colours
from common.data.jitter import as_input
from common.training.determinism import generator
from common.training.weights import fit_weights
from papers.resnet import imagenet
from papers.resnet.eval import predictor
from papers.resnet.imagenet import MEAN, VARIANTS
from papers.resnet.released import our_name, read

PAPER = load_paper("resnet")
DEPTHS = (18, 34, 50, 101, 152)


def variant_of(depth: int) -> str:
    return f"imagenet-resnet{depth}-{'B' if depth < 50 else 'v1.5'}"


def torchvisions(depth: int) -> nn.Module:
    """With moments as after some training."""
    draw = generator(0, "weights")
    network = get_model(f"resnet{depth}", weights=None)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.uniform_(0.5, 1, generator=draw)
    return network.eval()


@pytest.mark.parametrize(("depth", "variant"), [(18, "imagenet-resnet18-B"), (50, "imagenet-resnet50-v1.5")])
def test_a_network_read_from_a_file_says_what_torchvisions_says(tmp_path, depth, variant):
    theirs, file, recipe = torchvisions(depth), tmp_path / "weights.pth", VARIANTS[variant]
    torch.save({name: t for name, t in theirs.state_dict().items() if "num_batches" not in name}, file)  # as the oldest
    state = read(file, recipe)
    ready = predictor(state, recipe, lambda: pytest.fail("no training data is needed"))
    mean = state.pop(MEAN)
    ours = imagenet.build_model(recipe, 1000)
    fit_weights(ours, state)
    pixels = torch.randint(256, (2, 3, 64, 64), generator=generator(0, "pixels"), dtype=torch.uint8)
    prepared = get_model_weights(f"resnet{depth}").IMAGENET1K_V1.transforms()
    normalised = (pixels / 255 - torch.tensor(prepared.mean)[:, None, None]) / torch.tensor(prepared.std)[:, None, None]
    with torch.inference_mode():
        expected = theirs(normalised)
        said = ours.eval()(as_input(pixels, Colours(mean, torch.zeros(3, 3))))
        assert torch.equal(ready.eval()(pixels), said)
    torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_tensor_of_torchvisions_has_its_place_in_ours(depth):
    with torch.device("meta"):
        theirs = get_model(f"resnet{depth}", weights=None).state_dict()
        ours = imagenet.build_model(VARIANTS[variant_of(depth)], 1000).state_dict()
    assert {our_name(name): t.shape for name, t in theirs.items()} == {name: t.shape for name, t in ours.items()}


def test_the_files_are_those_that_torchvision_names():
    files = PAPER.dataset("torchvision_resnets").editions["official"].files
    released = {entry.variants[0]: entry.file for entry in PAPER.released}
    assert set(released.values()) == set(files)
    for depth in DEPTHS:
        weights, file = get_model_weights(f"resnet{depth}").IMAGENET1K_V1, files[released[variant_of(depth)]]
        assert file.urls == [weights.url]
        assert weights.url.endswith(f"resnet{depth}-{file.sha256_begins}.pth")


@pytest.mark.parametrize(
    "content", [b"", b"no weights", {"conv1.weight": torch.zeros(64, 3, 7, 7), "other": torch.zeros(1)}]
)
def test_a_file_laid_out_otherwise_is_refused(tmp_path, content):
    file = tmp_path / "weights.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(UsageError, match=r"weights\.pth is not laid out as torchvision's weights are \(.+\)\.$"):
        read(file, VARIANTS["imagenet-resnet18-B"])


def test_the_page_has_the_errors_that_torchvision_publishes():
    page = (PAPER.folder / "README.md").read_text(encoding="utf-8")
    rows = [" ".join(line.split()) for line in page.splitlines()]
    for depth in DEPTHS:
        published = get_model_weights(f"resnet{depth}").IMAGENET1K_V1.meta["_metrics"]["ImageNet-1K"]
        top1, top5 = (100 - published[f"acc@{guesses}"] for guesses in (1, 5))
        assert f"| {depth} | {top1:.2f} | {top5:.2f} |" in rows
