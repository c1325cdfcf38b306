"""LeNet-5 against the paper's own numbers, and against slower ways of computing the same."""

import gzip
import itertools
import math
import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from common.base.errors import DataError, UsageError
from common.claims.papers import load_paper
from common.data.passports import LocatedData, find_passport, locate
from common.training import compile_c, provenance
from common.training.determinism import generator
from common.training.recipes import as_text, described_fields, option_name, override
from common.training.records import Record
from common.training.run import Job, run_job
from papers.lenet5_1998 import kernel, sdlm, train
from papers.lenet5_1998.data import (
    Digits,
    Distortion,
    as_patterns,
    distort,
    distorted_patterns,
    distortion_amounts,
    load,
    read_idx,
)
from papers.lenet5_1998.model import (
    C3_SOURCES,
    LeNet5,
    Loss,
    fan_in,
    initialise,
    layer_counts,
    maximum_a_posteriori,
    maximum_likelihood,
    rbf_centres,
    squash,
)
from papers.lenet5_1998.train import (
    VARIANTS,
    Recipe,
    build_model,
    eta_of_pass,
    hold_out,
    patterns_of_pass,
    recipe,
)
from tests.contract.helpers import killed_after
from tests.papers.mistakes import spoil_checkpoint, step_off_by_one
from tests.real_data import real_data

PAPER = load_paper("lenet5_1998")
CODE = provenance.code(PAPER.name)
LOSSES = [Loss("eq8", 0.0), Loss("eq9", 1.0), Loss("eq9", 10.0)]
CURVATURES = [sdlm.Curvature(shared, top) for shared in (False, True) for top in ("exact", "quadratic")]
NETWORKS = [
    {"subsample_mean": mean, "squash_convolutions": squashed} for mean in (False, True) for squashed in (True, False)
]


def random_model(seed: int = 0, **options) -> LeNet5:
    model = LeNet5(**options)
    initialise(model, 1.0, 0.5, generator(seed, "test"))
    return model


def random_patterns(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = generator(seed, "patterns")
    return torch.rand(count, 32, 32, generator=draw) * 1.275 - 0.1, torch.randint(10, (count,), generator=draw)


def flat(model: LeNet5) -> torch.Tensor:
    return parameters_to_vector(model.parameters()).detach().clone()


# ---- the paper's counts and shapes ----------------------------------------------


def test_parameters_and_connections_are_the_papers():
    assert layer_counts(LeNet5()) == {
        "C1": (156, 122_304),
        "S2": (12, 5_880),
        "C3": (1_516, 151_600),
        "S4": (32, 2_000),
        "C5": (48_120, 48_120),
        "F6": (10_164, 10_164),
        "output": (0, 840),
    }


def test_totals_are_the_papers():
    parameters, connections = (sum(column) for column in zip(*layer_counts(LeNet5()).values(), strict=True))
    assert (parameters, connections) == (60_000, 340_908)
    assert sum(p.numel() for p in LeNet5().parameters()) == 60_000


def test_shapes_of_every_layer():
    shapes = {}
    model = LeNet5()
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda _, __, output, name=name: shapes.update({name: tuple(output.shape[1:])}))
    model(torch.zeros(3, 1, 32, 32))
    assert shapes == {
        "C1": (6, 28, 28), "S2": (6, 14, 14), "C3": (16, 10, 10), "S4": (16, 5, 5),
        "C5": (120, 1, 1), "F6": (84,), "output": (10,),
    }  # fmt: skip


def test_table_1_has_the_papers_pattern():
    assert [len(row) for row in C3_SOURCES] == [3] * 6 + [4] * 9 + [6]
    assert all(len(set(row)) == len(row) and set(row) <= set(range(6)) for row in C3_SOURCES)
    assert len({frozenset(row) for row in C3_SOURCES}) == 16, "different maps see different inputs"


def test_c3_is_sixteen_small_convolutions():
    model = random_model()
    x = torch.randn(2, 6, 14, 14, generator=generator(0, "c3"))
    whole = model.C3(x)
    kernels = iter(model.C3.weight)
    for number, sources in enumerate(C3_SOURCES):
        weight = torch.stack([next(kernels) for _ in sources])[None]
        small = torch.nn.functional.conv2d(x[:, sorted(sources)], weight, model.C3.bias[number : number + 1])
        torch.testing.assert_close(whole[:, number : number + 1], small, rtol=1e-5, atol=1e-6)


def test_absent_weights_of_c3_are_exactly_zero():
    dense = random_model().C3.masked_weight()
    for number, sources in enumerate(C3_SOURCES):
        for source in range(6):
            assert (dense[number, source] == 0).all() == (source not in sources)


def test_fan_in_of_each_c3_map():
    fans = fan_in(LeNet5())
    assert fans["C3.bias"].tolist() == [25.0 * len(sources) for sources in C3_SOURCES]
    per_kernel = [25.0 * len(sources) for sources in C3_SOURCES for _ in sources]
    assert fans["C3.weight"].flatten().tolist() == per_kernel


def test_initial_weights_fill_their_bounds():
    model = LeNet5()
    initialise(model, 2.4, 1.0, generator(0, "bounds"))
    for name, parameter in model.named_parameters():
        share = (parameter.detach() * fan_in(model)[name] / 2.4).abs()
        assert share.max() <= 1, name
        if parameter.numel() > 1000:
            assert share.max() > 0.99 and abs(share.mean() - 0.5) < 0.02, name


def test_bitmaps_are_seven_by_twelve_and_different():
    centres = rbf_centres()
    assert centres.shape == (10, 7 * 12)
    assert set(centres.flatten().tolist()) == {-1.0, 1.0}
    assert min((a != b).sum() for a, b in itertools.combinations(centres, 2)) >= 5


def test_squashing_function():
    assert squash(torch.tensor([1.0, -1.0])).tolist() == pytest.approx([1.0, -1.0], abs=1e-4)
    assert squash(torch.tensor(100.0)).item() == pytest.approx(1.7159)


def test_output_is_the_squared_distance_to_the_bitmaps():
    model = random_model()
    x = torch.randn(2, 84, generator=generator(0, "rbf"))
    expected = [
        [sum((a - b) ** 2 for a, b in zip(row.tolist(), centre.tolist(), strict=True)) for centre in rbf_centres()]
        for row in x
    ]
    assert model.output(x).tolist() == [pytest.approx(row, rel=1e-5) for row in expected]


# ---- the losses ---------------------------------------------------------------------


def test_losses_against_their_formulas():
    y = torch.rand(5, 10, generator=generator(0, "losses"), dtype=torch.float64) * 20
    label = torch.tensor([3, 1, 4, 1, 5])
    eq8 = [y[n, d].item() for n, d in enumerate(label)]
    eq9 = [own + math.log(math.exp(-2.5) + sum(math.exp(-v) for v in y[n].tolist())) for n, own in enumerate(eq8)]
    assert maximum_likelihood(y, label).item() == pytest.approx(sum(eq8) / 5)
    assert maximum_a_posteriori(y, label, 2.5).item() == pytest.approx(sum(eq9) / 5)


# ---- the recipe ---------------------------------------------------------------------


def test_eta_at_every_pass_of_the_paper():
    """0.0005 for the first two passes, 0.0002 for the next three, 0.0001 for the next three,
    0.00005 for the next four, 0.00001 thereafter (Sec. III-B)."""
    printed = [5e-4] * 2 + [2e-4] * 3 + [1e-4] * 3 + [5e-5] * 4 + [1e-5] * 8
    for variant in ("lenet5", "lenet5-distorted"):
        assert [eta_of_pass(VARIANTS[variant], number) for number in range(1, 21)] == printed
        assert VARIANTS[variant].passes == 20
    assert eta_of_pass(VARIANTS["lenet5"], 99) == 1e-5


def test_step_size_is_eta_over_mu_plus_curvature():
    h = torch.tensor([0.0, 0.98])
    assert sdlm.step_sizes(0.0005, 0.02, h).tolist() == pytest.approx([0.025, 0.0005])
    assert VARIANTS["lenet5"].mu == 0.02 and VARIANTS["lenet5"].curvature_patterns == 500


def test_every_pass_shows_every_pattern_once():
    for order in ("constant", "fresh"):
        passes = [patterns_of_pass(0, number, 50, Recipe(order=order)) for number in (1, 2, 3)]
        assert all(sorted(which.tolist()) == list(range(50)) for which in passes)
        assert torch.equal(passes[0], passes[1]) == (order == "constant")
    assert not torch.equal(patterns_of_pass(1, 1, 50, Recipe()), patterns_of_pass(0, 1, 50, Recipe()))


def test_ten_passes_show_all_distorted_patterns_once():
    distorted = Recipe(distorted_copies=9)
    seen = torch.cat([patterns_of_pass(0, number, 50, distorted) for number in range(1, 11)])
    assert sorted(seen.tolist()) == list(range(500))
    assert torch.equal(patterns_of_pass(0, 11, 50, distorted), patterns_of_pass(0, 1, 50, distorted))


def test_hold_out_takes_the_end_of_the_training_set_to_measure_on():
    images = torch.arange(10, dtype=torch.uint8)[:, None, None].expand(10, 28, 28)
    digits = Digits(images, torch.arange(10), images[:2] + 100, torch.tensor([0, 1]))
    kept = hold_out(digits, Recipe(held_out=3))
    assert kept.train_labels.tolist() == list(range(7))
    assert kept.test_labels.tolist() == [7, 8, 9]
    with pytest.raises(UsageError, match="--train-patterns 11: there are 10"):
        hold_out(digits, Recipe(train_patterns=11))
    with pytest.raises(UsageError, match="--held-out 10: there are 10 to train on"):
        hold_out(digits, Recipe(held_out=10))


NONSENSE = [
    ("passes", 0), ("passes", 10**21), ("eta", ()), ("eta", ((0, 0.1),)), ("eta", ((-1, 0.1),)), ("eta", ((1, -5.0),)),
    ("eta", ((20, 0.0),)), ("eta", ((2, 0.1), (10**9, 0.1))), ("mu", -0.02), ("mu", 0.0), ("curvature_patterns", 0),
    ("curvature_patterns", 10**12), ("j", -1.0), ("bound", 0.0), ("fan_in_exponent", 1000.0), ("distorted_copies", -1),
    ("distorted_copies", 100_000_000), ("shift", -1.0), ("shift", 29.0), ("scale", 2.0), ("squeeze", -0.1),
    ("shear", 1e300), ("held_out", -1),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), NONSENSE)
def test_values_that_make_no_sense_are_refused(field, value):
    option = option_name(field)
    with pytest.raises(UsageError, match=f"^{option}.*: .*should"):
        override(Recipe(), [option, as_text(value)])


def test_every_field_of_the_recipe_has_a_line_of_help():
    assert all(not line.startswith("[default") for _, line in described_fields(Recipe))


def test_a_network_built_without_options_is_the_default_variants():
    default, built = LeNet5(), build_model(VARIANTS[PAPER.default_variant])
    built.load_state_dict(random_model().state_dict())
    default.load_state_dict(built.state_dict())
    patterns, _ = random_patterns(2)
    assert torch.equal(default(patterns[:, None]), built(patterns[:, None]))


def test_presets_shorten_only():
    for variant, full in VARIANTS.items():
        assert recipe(variant, "full") == full
        assert recipe(variant, "quick").passes < full.passes
        assert recipe(variant, "smoke").train_patterns <= 1000


# ---- the data -----------------------------------------------------------------------


def test_patterns_have_the_papers_values():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 5, 7] = 255
    pattern = as_patterns(image)
    assert pattern.shape == (1, 32, 32)
    assert pattern[0, 7, 9].item() == pytest.approx(1.175)
    assert pattern[0, 0, 0].item() == pytest.approx(-0.1), "the margin has the background's value"
    image[0, :, 27] = 255
    assert as_patterns(image, "replicate")[0, 10, 31].item() == pytest.approx(1.175)


def test_no_distortion_leaves_images_alone():
    images = random_images(3)
    assert torch.equal(distort(images, torch.zeros(3, 5)), images)


def test_a_shift_of_one_pixel_moves_by_one_pixel():
    image = random_images(1)
    moved = distort(image, torch.tensor([[1.0, 0, 0, 0, 0]]))
    assert (moved[0, :, 1:].int() - image[0, :, :-1].int()).abs().max() <= 1
    down = distort(image, torch.tensor([[0, 1.0, 0, 0, 0]]))
    assert (down[0, 1:].int() - image[0, :-1].int()).abs().max() <= 1


def test_scale_squeeze_and_shear_do_what_they_say():
    bar = torch.zeros(1, 28, 28, dtype=torch.uint8)
    bar[0, 10:18, 10:18] = 255

    def extent(amounts):
        rows, columns = (distort(bar, torch.tensor([amounts]))[0] > 127).nonzero(as_tuple=True)
        return rows.max() - rows.min() + 1, columns.max() - columns.min() + 1

    double = math.log(2)
    assert extent([0.0, 0, double, 0, 0]) == (16, 16)
    tall, wide = extent([0.0, 0, 0, double, 0])
    assert (tall, wide) == (4, 16)
    sheared = distort(bar, torch.tensor([[0.0, 0, 0, 0, 1.0]]))[0].float()
    columns = torch.arange(28.0)
    centre = (sheared * columns).sum(1) / sheared.sum(1).clamp(min=1)
    assert centre[17] - centre[10] == pytest.approx(7, abs=0.2), "a row is moved by its height"


def test_distorted_patterns_depend_on_seed_and_copy():
    images = random_images(4)
    distortion = Distortion(2.0, 0.2, 0.2, 0.3)
    some = distorted_patterns(images, torch.tensor([2, 4, 9, 0]), 0, distortion)
    assert torch.equal(some[0], images[2]) and torch.equal(some[3], images[0])
    expected = distort(images[0:1], distortion_amounts(0, 1, 4, distortion)[0:1])
    assert torch.equal(some[1:2], expected)
    assert not torch.equal(distorted_patterns(images, torch.tensor([4]), 1, distortion), expected)
    assert not torch.equal(distortion_amounts(0, 1, 4, distortion), distortion_amounts(0, 2, 4, distortion))


def random_images(count: int) -> torch.Tensor:
    inner = torch.randint(256, (count, 16, 16), generator=generator(0, "images"), dtype=torch.uint8)
    return torch.nn.functional.pad(inner, (6, 6, 6, 6))


def test_stand_in_digits_are_real_digits_in_the_middle():
    digits = load(LocatedData("mnist", "stand-in", None, {}))
    assert digits.train_images.shape == (1437, 28, 28) and digits.test_images.shape == (360, 28, 28)
    assert digits.train_images[:, :4].max() == 0 and digits.train_images.max() == 255
    assert set(digits.test_labels.tolist()) == set(range(10))


TOO_SHORT = gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc", mtime=0)  # with the time in it, each process names its own test


@pytest.mark.parametrize("content", [b"", b"no gzip", TOO_SHORT], ids=["empty", "no gzip", "too short"])
def test_a_broken_idx_file_is_a_data_error(content):
    with pytest.raises(DataError):
        read_idx(content, "train-labels")


def test_real_mnist_has_its_counts():
    digits = load(real_data(find_passport("mnist")))
    assert digits.train_images.shape == (60_000, 28, 28) and digits.test_images.shape == (10_000, 28, 28)
    assert torch.bincount(digits.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize(("folder", "edition"), [("mnist", "unpacked"), ("MNIST/raw", "torchvision")])
def test_real_mnist_is_read_unpacked_too(tmp_path, monkeypatch, folder, edition):
    packed = real_data(find_passport("mnist"))
    (tmp_path / folder).mkdir(parents=True)
    for name in packed.files:
        (tmp_path / folder / name.removesuffix(".gz")).write_bytes(gzip.decompress((packed.folder / name).read_bytes()))
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    unpacked = locate(find_passport("mnist"))
    assert unpacked.edition == edition and find_passport("mnist").counts(edition)
    for part, same in zip(vars(load(packed)).values(), vars(load(unpacked)).values(), strict=True):
        assert torch.equal(part, same)


# ---- the updates ----------------------------------------------------------------------

needs_compiler = pytest.mark.skipif(
    compile_c.compile_c(kernel.SOURCE, *kernel.FLAGS) is None, reason="no C compiler here"
)


@needs_compiler
@pytest.mark.parametrize("options", NETWORKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_kernel_gradient_is_autograds_in_double_precision(options, loss):
    model = random_model(**options)
    patterns, labels = random_patterns(3)
    fast = kernel.build(model, loss, CURVATURES[0])
    before = flat(model)
    for n in range(3):
        after = before.clone()
        fast.updates(after, torch.ones(60_000), patterns, labels, torch.tensor([n]))
        exact = LeNet5(**options).double()
        vector_to_parameters(before.double(), exact.parameters())
        value = loss(exact(patterns[n].double()[None, None]), labels[n : n + 1])
        gradient = parameters_to_vector(torch.autograd.grad(value, list(exact.parameters())))
        torch.testing.assert_close(
            (before - after).double(), gradient, rtol=1e-4, atol=2e-6 * gradient.abs().max().item()
        )


@needs_compiler
@pytest.mark.parametrize(
    "loss",
    [pytest.param(LOSSES[0], marks=pytest.mark.slow), *LOSSES[1:2], pytest.param(LOSSES[2], marks=pytest.mark.slow)],
)
def test_kernel_and_pytorch_stay_together_over_many_updates(loss):
    patterns, labels = random_patterns(100)
    model = random_model(subsample_mean=True)
    fast, weights = kernel.build(model, loss, CURVATURES[0]), flat(model)
    rates = torch.full((60_000,), 1e-4)
    order = torch.arange(100)
    penalty, mistakes = fast.updates(weights, rates, patterns, labels, order)
    slow = [sdlm.update(model, rates, patterns[n], labels[n], loss) for n in order]
    torch.testing.assert_close(weights, flat(model), rtol=1e-3, atol=1e-5)
    assert penalty == pytest.approx(sum(p for p, _ in slow), rel=1e-4)
    assert mistakes == sum(wrong for _, wrong in slow)


@needs_compiler
@pytest.mark.parametrize("options", NETWORKS)
@pytest.mark.parametrize("loss", LOSSES[1:])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_kernel_and_pytorch_have_the_same_second_derivatives(options, loss, curvature):
    model = random_model(**options)
    patterns, _ = random_patterns(7)
    fast = kernel.build(model, loss, curvature).second_derivatives(flat(model), patterns)
    slow = sdlm.second_derivatives(model, patterns, loss, curvature)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-6 * slow.max().item())
    assert (slow >= 0).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mean", [True, False])
def test_second_derivatives_against_one_connection_at_a_time(shared, mean):
    """Appendix C, written out for every one of the 340,068 trained connections in plain Python."""
    model = random_model(3, subsample_mean=mean)
    pattern = random_patterns(1, 3)[0]
    loss = Loss("eq9", 2.0)
    fast = sdlm.second_derivatives(model.double(), pattern.double(), loss, sdlm.Curvature(shared, "exact"))
    slow = scalar_second_derivatives(model, pattern[0].double(), 2.0, shared)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-8, atol=1e-12)


def scalar_second_derivatives(model: LeNet5, pattern: torch.Tensor, j: float, shared: bool) -> np.ndarray:
    """h_kk of one pattern. Every connection is a triple (unit, weight k, input), and
    d2E/da^2 = f'(a)^2 sum over outgoing connections of u^2 d2E/da_out^2."""
    w = flat(model).double().tolist()
    layers = connections_of_lenet5(model.S2.mean, shared)
    units = [pattern.flatten().tolist()]  # outputs x, layer by layer
    slopes = [[]]
    for layer in layers:
        sums = [0.0] * layer["units"]
        for unit, k, inputs, factor in layer["weights"]:
            sums[unit] += w[k] * factor * sum(units[-1][i] for i in inputs)
        for unit, k in layer["biases"]:
            sums[unit] += w[k]
        units.append([1.7159 * math.tanh(2 / 3 * a) for a in sums])
        slopes.append([2 / 3 * 1.7159 * (1 - math.tanh(2 / 3 * a) ** 2) for a in sums])
    h = [0.0] * 60_000
    back = scalar_top_curvature(units[-1], j)
    for depth in range(len(layers), 0, -1):
        d = [slope**2 * value for slope, value in zip(slopes[depth], back, strict=True)]
        back = [0.0] * len(units[depth - 1])
        for unit, k, inputs, factor in layers[depth - 1]["weights"]:
            h[k] += d[unit] * (factor * sum(units[depth - 1][i] for i in inputs)) ** 2
            for i in inputs:
                back[i] += d[unit] * (factor * w[k]) ** 2
        for unit, k in layers[depth - 1]["biases"]:
            h[k] += d[unit]
    return np.array(h)


def connections_of_lenet5(mean: bool, shared: bool) -> list[dict]:
    """Weighted connections (unit, weight, inputs, factor) and biases (unit, weight). The inputs
    are one, but where a subsampling coefficient weighs the whole window."""
    counter = itertools.count()

    def convolution(sources: list[list[int]], side_in: int, side: int) -> dict:
        kernels = [[[next(counter) for _ in range(25)] for _ in row] for row in sources]
        biases = [next(counter) for _ in sources]
        layer = {"units": len(sources) * side * side, "weights": [], "biases": []}
        for m, row in enumerate(sources):
            for y, x in itertools.product(range(side), range(side)):
                unit = (m * side + y) * side + x
                layer["biases"].append((unit, biases[m]))
                for kernel_, source in zip(kernels[m], row, strict=True):
                    for i, j in itertools.product(range(5), range(5)):
                        place = (source * side_in + y + i) * side_in + x + j
                        layer["weights"].append((unit, kernel_[i * 5 + j], [place], 1.0))
        return layer

    def subsampling(maps: int, side: int) -> dict:
        coefficients = [next(counter) for _ in range(maps)]
        biases = [next(counter) for _ in range(maps)]
        layer = {"units": maps * side * side, "weights": [], "biases": []}
        for m, y, x in itertools.product(range(maps), range(side), range(side)):
            unit = (m * side + y) * side + x
            cells = [(m * 2 * side + 2 * y + i) * 2 * side + 2 * x + j for i in (0, 1) for j in (0, 1)]
            layer["biases"].append((unit, biases[m]))
            for inputs in [[cell] for cell in cells] if shared else [cells]:
                layer["weights"].append((unit, coefficients[m], inputs, 0.25 if mean else 1.0))
        return layer

    def full(units: int, inputs: int) -> dict:
        weights = [(u, next(counter), [i], 1.0) for u in range(units) for i in range(inputs)]
        return {"units": units, "weights": weights, "biases": [(u, next(counter)) for u in range(units)]}

    return [
        convolution([[0]] * 6, 32, 28), subsampling(6, 14),
        convolution([sorted(row) for row in C3_SOURCES], 14, 10), subsampling(16, 5),
        full(120, 400), full(84, 120),
    ]  # fmt: skip


def scalar_top_curvature(x: list[float], j: float) -> list[float]:
    centres = rbf_centres().tolist()
    y = [sum((a - b) ** 2 for a, b in zip(x, centre, strict=True)) for centre in centres]
    total = math.exp(-j) + sum(math.exp(-v) for v in y)
    p = [math.exp(-v) / total for v in y]
    values = []
    for u, value in enumerate(x):
        slopes = [2 * (value - centre[u]) for centre in centres]
        mean = sum(share * slope for share, slope in zip(p, slopes, strict=True))
        square = sum(share * slope**2 for share, slope in zip(p, slopes, strict=True))
        values.append(2 * (1 - sum(p)) + square - mean**2)
    return values


def test_top_curvature_is_the_losss_second_derivative():
    x = torch.randn(84, generator=generator(0, "top"), dtype=torch.float64) * 0.3
    centres = rbf_centres().double()

    def value(x6):
        return maximum_a_posteriori((x6 - centres).square().sum(1)[None], torch.tensor([4]), 60.0)

    expected = torch.autograd.functional.hessian(value, x).diagonal()
    y = (x - centres).square().sum(1)[None]
    found = sdlm.top_curvature(x[None], y, centres, Loss("eq9", 60.0), "exact")[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@needs_compiler
def test_bits_do_not_depend_on_the_processors_vectors(tmp_path):
    """The plainest x86-64 code and the best this machine can do end with the same weights."""
    results = []
    for number, tuned in enumerate(["-march=native", "", "-O1"]):
        library = tmp_path / f"kernel{number}.so"
        flags = [*compile_c.FLAGS, *kernel.FLAGS, *tuned.split()]
        command = [os.environ.get("CC", "cc"), *flags, str(kernel.SOURCE), "-o", str(library)]
        subprocess.run(command, check=True)
        import ctypes

        model = random_model(subsample_mean=True)
        fast = kernel.Kernel(ctypes.CDLL(str(library)), "", model, Loss("eq9", 10.0), CURVATURES[0])
        weights = flat(model)
        patterns, labels = random_patterns(200)
        rates = sdlm.step_sizes(5e-4, 0.02, fast.second_derivatives(weights, patterns[:20]))
        fast.updates(weights, rates, patterns, labels, torch.arange(200))
        results.append(weights)
    assert all(torch.equal(results[0], other) for other in results[1:])


@needs_compiler
@pytest.mark.parametrize("options", NETWORKS)
def test_kernel_and_pytorch_classify_alike(options):
    model = random_model(**options)
    patterns, _ = random_patterns(200)
    initialise(model, 12.0, 0.5, generator(1, "wide"))  # so that not all are one class
    found = kernel.build(model, LOSSES[0], CURVATURES[0]).classify(flat(model), patterns)
    penalties = model(patterns[:, None])
    smallest, next_one = penalties.topk(2, dim=1, largest=False).values.unbind(1)
    decided = next_one - smallest > 1e-4 * next_one  # elsewhere the last bits of a sum may choose
    assert torch.equal(found[decided], penalties.argmin(dim=1)[decided])
    assert len(found.unique()) > 1 and decided.sum() > 150


@needs_compiler
def test_kernel_refuses_tensors_it_cannot_read():
    model = random_model()
    patterns, labels = random_patterns(4)
    with pytest.raises(ValueError, match="contiguous"):
        kernel.build(model, LOSSES[0], CURVATURES[0]).updates(
            flat(model), torch.ones(120_000)[::2], patterns, labels, torch.arange(4)
        )


# ---- runs: train, resume, evaluate -------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the whole runs lie: each is made once, and whoever asks for it again is given its record."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def short_steps(monkeypatch):
    """A pass over 60 patterns in three steps."""
    monkeypatch.setattr(train, "CHUNK", 25)


def job(folder, variant="lenet5", **changes) -> Job:
    data = LocatedData("mnist", "stand-in", None, {})
    short = replace(recipe(variant, "smoke"), train_patterns=60, curvature_patterns=10, **changes)
    return Job(PAPER.name, variant, "smoke", 0, short, True, data, "cpu", folder, "test", CODE)


def finished(folder, **how) -> Record:
    return run_job(job(folder, **how))[0]


def cut_after(steps: int, folder, **how) -> None:
    with killed_after(steps):
        run_job(job(folder, **how))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_resumes_and_evaluates(tmp_path, runs, variant):
    whole = finished(runs, variant=variant)
    cut_after(5, tmp_path, variant=variant)  # of six: in the middle of the second pass
    resumed = finished(tmp_path, variant=variant)
    assert resumed.weights.sha256 == whole.weights.sha256
    assert (resumed.metrics, resumed.curves, resumed.details) == (whole.metrics, whole.curves, whole.details)
    assert list(whole.curves) == ["eta", "online_error", "train_error", "test_error"]
    assert all(0 < error <= 100 for error in whole.curves["online_error"]), "counted anew in each pass"
    last = {name: whole.curves[name][-1] for name in whole.metrics["last"]}
    assert last == pytest.approx(whole.metrics["last"], abs=2), "a close call may fall differently in the kernel"


@pytest.mark.parametrize("steps", [1, 3, 6])
@pytest.mark.parametrize("compiled", [True, False])
def test_killed_at_any_step_it_ends_with_the_same_bits(tmp_path, runs, steps, compiled):
    """Three steps are a pass; the last one of a pass is over before its errors are measured."""
    cut_after(steps, tmp_path, compiled=compiled)
    resumed, whole = finished(tmp_path, compiled=compiled), finished(runs, compiled=compiled)
    assert (resumed.weights.sha256, resumed.curves) == (whole.weights.sha256, whole.curves)


def one_weight_off(kept: dict) -> None:
    kept["at"]["weights"][0] += 1e-6


def other_rates(kept: dict) -> None:
    kept["at"]["rates"].mul_(1.01)


@pytest.mark.parametrize("mistake", [step_off_by_one, one_weight_off, other_rates])
def test_a_resume_with_a_mistake_would_be_noticed(tmp_path, runs, mistake):
    cut_after(4, tmp_path)
    spoil_checkpoint(job(tmp_path).folder, mistake)
    assert finished(tmp_path).weights.sha256 != finished(runs).weights.sha256


def test_the_training_error_after_19_passes_is_that_of_pass_19(tmp_path):
    record = finished(tmp_path, passes=20)
    assert record.metrics["pass-19"] == {"train_error": record.curves["train_error"][18]}
    assert "pass-19" not in finished(tmp_path, passes=2).metrics


def test_held_out_patterns_take_the_test_sets_place(tmp_path):
    record = finished(tmp_path, held_out=100)
    assert "test_error" not in record.curves and len(record.curves["held_out_error"]) == 2
    assert sum(map(sum, record.details["confusion_matrix"])) == 100


def test_a_try_of_an_open_question_is_measured_on_held_out_patterns(monkeypatch):
    from papers.lenet5_1998 import choose

    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # it would hold for the tests to come
    monkeypatch.setattr(choose, "HELD_OUT", 100)
    monkeypatch.setattr(choose, "locate", lambda passport: LocatedData(passport.name, "stand-in", None, {}))
    monkeypatch.setitem(choose.VARIANTS, "lenet5", recipe("lenet5", "smoke"))
    row = choose.one_try({"j": 5.0}, seed=1)
    assert (row["j"], row["seed"], row["bound"]) == (5.0, 1, 2.4)
    assert 0 < row["held_out_error"] < 90 and 0 < row["train_error"] < 90


# ---- the open questions ------------------------------------------------------------


def test_the_page_shows_every_try():
    from papers.lenet5_1998 import choose

    tries = choose.known_tries(choose.FILE)
    assert tries, "choices.csv holds the tries that settled the open questions"
    assert choose.page_block(tries) in choose.FILE.with_name("README.md").read_text(encoding="utf-8")


def test_frozen_recipe_was_tried():
    from papers.lenet5_1998 import choose

    amounts = ("shift", "scale", "squeeze", "shear")
    for variant in ("lenet5", "lenet5-distorted"):
        frozen = VARIANTS[variant]
        names = [name for name in choose.START if frozen.distorted_copies or name not in amounts]
        wanted = {name: str(getattr(frozen, name)) for name in names}
        assert any(all(row[name] == value for name, value in wanted.items()) for row in choose.known_tries(choose.FILE))
