"""The weights that DnCNN's authors released: how their files are read, and what they measure."""

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from common.base.errors import UsageError
from common.claims.papers import load_paper
from common.publishing.released import measure_weights
from papers.dncnn.eval import load_network
from papers.dncnn.model import DnCNN, convolutions, for_inference
from papers.dncnn.released import read
from papers.dncnn.train import VARIANTS, Recipe
from tests.real_data import real_data

PAPER = load_paper("dncnn")
SHORT = Recipe(depth=3)


def write_as_authors(path, kernels: list[np.ndarray], biases: list[np.ndarray]) -> None:
    """A Matlab v7.3 file as theirs: cells are references, arrays have their axes reversed.

    Args:
        kernels: each (height, width, in, out), as in Matlab.
    """
    with h5py.File(path, "w") as file:
        held = file.create_group("#refs#")

        def refer(name: str, content) -> h5py.Reference:
            return held.create_dataset(name, data=content).ref

        def layer(name: str, kind: str) -> h5py.Group:
            made = held.create_group(name)
            made["type"] = np.array([[ord(character)] for character in kind], np.uint16)
            return made

        def cells(group, name: str, references: list) -> None:
            group.create_dataset(name, data=np.array(references, h5py.ref_dtype)[:, None], dtype=h5py.ref_dtype)

        layers = []
        for number, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
            made = layer(f"conv{number}", "conv")
            # Matlab knows no last axis of length 1.
            stored = (kernel[..., 0] if kernel.shape[-1] == 1 else kernel).T
            references = [refer(f"kernel{number}", stored.astype(np.float32)),
                          refer(f"bias{number}", bias[None].astype(np.float32))]  # fmt: skip
            cells(made, "weights", references)
            layers += [made.ref] if number == len(kernels) - 1 else [made.ref, layer(f"relu{number}", "relu").ref]
        cells(file.create_group("net"), "layers", layers)


def random_network(seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    draw = np.random.default_rng(seed)
    shapes = [(3, 3, 1, 64), (3, 3, 64, 64), (3, 3, 64, 1)]
    return [0.1 * draw.normal(size=s) for s in shapes], [0.1 * draw.normal(size=s[-1]) for s in shapes]


@pytest.fixture
def released(tmp_path):
    kernels, biases = random_network()
    write_as_authors(tmp_path / "weights.mat", kernels, biases)
    return tmp_path / "weights.mat"


def test_kernels_and_biases_come_where_they_belong(released):
    kernels, biases = random_network()
    state = read(released, SHORT)
    assert list(state) == [f"layers.{n}.{part}" for n in (0, 2, 4) for part in ("weight", "bias")]
    for number, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        expected = torch.from_numpy(kernel.transpose(3, 2, 0, 1)).float()  # (out, in, height, width)
        assert torch.equal(state[f"layers.{2 * number}.weight"], expected)
        assert state[f"layers.{2 * number}.bias"].tolist() == pytest.approx(bias.tolist())


def test_what_is_read_is_the_network_that_batch_norm_was_merged_into(tmp_path):
    """A network with batch normalization, merged and written as the authors do it, reads as the same function."""
    torch.manual_seed(0)
    model = DnCNN(5).eval()
    for layer in model.layers:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    merged = convolutions(for_inference(model))
    kernels = [layer.weight.detach().numpy().transpose(2, 3, 1, 0) for layer in merged]
    write_as_authors(tmp_path / "merged.mat", kernels, [layer.bias.detach().numpy() for layer in merged])
    recipe = Recipe(depth=5)
    noisy = torch.rand(1, 1, 11, 17)
    with torch.no_grad():
        found = load_network(read(tmp_path / "merged.mat", recipe), recipe, "cpu")(noisy)
        torch.testing.assert_close(found, model(noisy), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spoil", [
    lambda file: file.pop("net"),
    lambda file: file["#refs#/conv1"].pop("weights"),
    lambda file: file["#refs#/conv1"].pop("type"),
    lambda file: (file["net"].pop("layers"), file["net"].create_dataset("layers", data=[1.0, 2.0])),
    lambda file: file["#refs#/conv1/weights"].__setitem__((0, 0), file["#refs#/bias0"].ref),
])  # fmt: skip
def test_another_layout_is_refused(released, spoil):
    with h5py.File(released, "r+") as file:
        spoil(file)
    with pytest.raises(UsageError, match=r"weights\.mat is not laid out as the authors' weights are"):
        read(released, SHORT)


def test_a_file_that_is_no_hdf5_is_refused(tmp_path):
    (tmp_path / "weights.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(UsageError, match=r"weights\.mat is not laid out"):
        read(tmp_path / "weights.mat", SHORT)


def test_weights_of_another_depth_are_refused(released):
    with pytest.raises(UsageError, match="has 3 convolutions, and the variant 17"):
        read(released, VARIANTS["sigma25-authors"])


def printed(released) -> dict[tuple[str, str], float]:
    return {(c.protocol, c.metric): c.value for c in PAPER.claims if c.variant == released.variants[0]}


def measured(released, dataset: str) -> dict[tuple[str, str], float]:
    weights, data = real_data(PAPER.dataset(released.dataset)), real_data(PAPER.dataset(dataset))
    metrics = measure_weights(PAPER, released, weights, data).metrics
    return {(protocol, metric): value for protocol, values in metrics.items() for metric, value in values.items()}


def agree_with_the_paper(found: dict, claims: dict) -> int:
    """How many numbers are printed, all of which agree to the last digit or nearly so."""
    both = found.keys() & claims.keys()
    for protocol, metric in both:
        reach = 0.011 if metric == "psnr" else 0.00015
        assert found[protocol, metric] == pytest.approx(claims[protocol, metric], abs=reach), (protocol, metric)
    return len(both)


@pytest.mark.slow
def test_the_authors_weights_measure_set5_as_printed():
    """Two metrics at three scales."""
    (weights,) = (released for released in PAPER.released if released.id == "three-tasks")
    assert agree_with_the_paper(measured(weights, "set5"), printed(weights)) == 6


@pytest.mark.slow
def test_the_authors_weights_measure_every_picture_of_set12_as_printed():
    """The noise is the authors' own."""
    (weights,) = (released for released in PAPER.released if released.id == "sigma25")
    assert agree_with_the_paper(measured(weights, "set12"), printed(weights)) == 12 + 1


@pytest.mark.slow
@pytest.mark.parametrize("released", PAPER.released, ids=lambda released: released.id)
def test_the_authors_weights_measure_every_claim_as_printed(released):
    found = {}
    for dataset in released.tests:
        found |= measured(released, dataset)
    beyond = {key for key in printed(released) if key[0].startswith(("bsd100", "urban100"))}
    assert agree_with_the_paper(found, printed(released)) == len(printed(released)) - len(beyond)
