"""DnCNN against the paper's own numbers and formulas, and against slower ways of computing the same."""

import io
import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from common.base.errors import DataError, UsageError
from common.claims.papers import load_paper
from common.data.passports import LocatedData, find_passport, locate
from common.training.determinism import generator
from common.training.recipes import described_fields, override
from papers.dncnn import choose, degrade, matlab_noise, noisy_sets, train
from papers.dncnn import data as preparing
from papers.dncnn import eval as measuring
from papers.dncnn.data import Pictures, grid_patches, load, random_patches
from papers.dncnn.eval import deblocked, evaluate, mean_of_pictures, restore, super_resolved
from papers.dncnn.matlab_noise import randn
from papers.dncnn.model import (
    DnCNN,
    convolutions,
    denoise,
    for_inference,
    initialise,
    merge_batch_norm,
    receptive_field,
)
from papers.dncnn.scores import psnr, ssim, to_8bit
from papers.dncnn.train import AUTHORS, PRINTED, VARIANTS, Recipe, rate_of_epoch, recipe
from tests.real_data import real_data

PAPER = load_paper("dncnn")


def network(depth: int = 17, channels: int = 1, seed: int = 0) -> DnCNN:
    """With batch normalization as after some training: no scale is 1, no mean 0."""
    model = DnCNN(depth, channels)
    draw = generator(seed, "test")
    initialise(model, "he", draw)
    for layer in model.layers:
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low in ((layer.weight, 0.5), (layer.bias, -0.2), (layer.running_mean, -0.5)):
                tensor.data.uniform_(low, low + 0.7, generator=draw)
            layer.running_var.uniform_(0.5, 2, generator=draw)
    return model.eval()


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=generator(seed, "pictures"))


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    """(H, W) or (H, W, 3), smooth enough to be a photograph, with values from 0 to 255."""
    channels = math.prod(shape[2:])
    coarse = torch.randint(256, (1, channels, 9, 9), generator=generator(seed, "picture")).float()
    fine = nn.functional.interpolate(coarse, size=shape[:2], mode="bicubic").clamp(0, 255).byte()
    return fine[0].permute(1, 2, 0).numpy().reshape(shape)


# ---- the paper's network ------------------------------------------------------------


def test_receptive_fields_are_the_papers():
    assert receptive_field(DnCNN(17)) == 35 and receptive_field(DnCNN(20)) == 41


@pytest.mark.parametrize("depth", [3, 5])
def test_a_pixel_sees_as_far_as_the_receptive_field_and_no_farther(depth):
    model, side = network(depth), 2 * depth + 9
    y = uniform(1, 1, side, side).requires_grad_()
    model(y)[0, 0, side // 2, side // 2].backward()
    seen = (y.grad[0, 0] != 0).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [2 * depth + 1] * 2


def test_layers_stand_in_the_papers_order():
    kinds = [type(layer).__name__ for layer in DnCNN(17).layers]
    assert kinds == ["Conv2d", "ReLU"] + ["Conv2d", "BatchNorm2d", "ReLU"] * 15 + ["Conv2d"]
    assert len(convolutions(DnCNN(20))) == 20


@pytest.mark.parametrize(("depth", "weights"), [(17, 554_112), (20, 664_704)])
def test_parameters_under_every_convention_of_biases(depth, weights):
    model = DnCNN(depth)
    layers = convolutions(model)
    assert sum(layer.weight.numel() for layer in layers) == weights  # no bias, no batch normalization
    norms = sum(p.numel() for layer in model.layers if isinstance(layer, nn.BatchNorm2d) for p in layer.parameters())
    assert weights + norms == {17: 556_032, 20: 667_008}[depth]  # a scale and a shift per map
    assert weights + norms + layers[0].bias.numel() == {17: 556_096, 20: 667_072}[depth]  # bias in the first layer
    assert sum(p.numel() for p in model.parameters()) == {17: 556_097, 20: 667_073}[depth]  # and in the last: ours
    merged = sum(p.numel() for p in merge_batch_norm(model).parameters())
    assert merged == {17: 555_137, 20: 665_921}[depth]  # a bias in every layer


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (40, 40), (33, 18)])
@pytest.mark.parametrize("channels", [1, 3])
def test_output_is_as_large_as_the_input(shape, channels):
    y = uniform(2, channels, *shape)
    assert network(5, channels)(y).shape == denoise(network(5, channels), y).shape == y.shape


@pytest.mark.parametrize("depth", [17, 20])
def test_merged_batch_norm_is_the_same_function(depth):
    model, y = network(depth), uniform(2, 1, 45, 38)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in merge_batch_norm(model))
    torch.testing.assert_close(merge_batch_norm(model)(y), model(y), rtol=0, atol=1e-5)
    torch.testing.assert_close(for_inference(model)(y), model(y), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_without_residual_learning_the_layers_give_the_clean_picture(batch_norm):
    """In training the loss is that of eq. 1 with the clean picture in the noise's place."""
    model = DnCNN(5, batch_norm=batch_norm, residual=False)
    initialise(model, "he", generator(0, "weights"))
    y, v = uniform(2, 1, 30, 20), uniform(2, 1, 30, 20, seed=1) - 0.5
    loss = (model.layers(y) - (y - v)).square().sum() / 4
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    assert train.update(model, still, y, v, torch.float32).item() == pytest.approx(loss.item(), rel=1e-5)
    model.eval()
    for network in (model, merge_batch_norm(model), for_inference(model)):
        assert receptive_field(network) == 11
        torch.testing.assert_close(denoise(network, y), model.layers(y), rtol=0, atol=1e-5)


def test_the_fast_algorithm_changes_psnr_by_less_than_a_page_can_show():
    """A residual as large as noise of level 25, on a picture half as wide and high as those of the Berkeley set."""
    model, clean = network(17), uniform(1, 1, 160, 240)
    with torch.no_grad():
        model.layers[-1].weight *= 25 / 255 / model(clean).std()
        model.layers[-1].bias.fill_(-model(clean).mean())
    slow, fast = (denoise(of(model), clean) for of in (merge_batch_norm, for_inference))
    assert slow.sub(clean).std() == pytest.approx(25 / 255, rel=0.01)
    assert abs(psnr(slow, clean) - psnr(fast, clean)) < 1e-4


def test_merging_leaves_the_model_as_it_was():
    model = network(5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = [type(part) for part in model.modules()]
    for_inference(model)
    assert [type(part) for part in model.modules()] == kinds
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_denoised_is_the_input_without_the_residual():
    model, y = network(5), uniform(1, 1, 30, 20)
    torch.testing.assert_close(denoise(model, y), y - model(y), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "tile"), [(64, 64, 16), (61, 47, 20), (30, 70, 64), (50, 5, 7)])
def test_tiles_give_the_untiled_result(height, width, tile):
    model, y = for_inference(network(17)), uniform(1, 1, height, width)
    torch.testing.assert_close(denoise(model, y, tile), denoise(model, y, 1000), rtol=0, atol=1e-5)


def test_a_margin_one_pixel_narrower_would_show(monkeypatch):
    """So that the test above cannot pass by being empty."""
    from papers.dncnn import model as modelling

    model, y = for_inference(network(5)), uniform(1, 1, 40, 40)
    whole = denoise(model, y, 1000)
    monkeypatch.setattr(modelling, "receptive_field", lambda _: 9)
    assert (denoise(model, y, 10) - whole).abs().max() > 1e-4


def test_initial_weights():
    he, authors = DnCNN(17), DnCNN(17)
    initialise(he, "he", generator(0, "weights"))
    initialise(authors, "authors", generator(0, "weights"))
    first, second, *_, last = [layer.weight for layer in convolutions(he)]
    assert first.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.1)
    assert second.std().item() == pytest.approx(math.sqrt(2 / 576), rel=0.02)
    assert last.std().item() == pytest.approx(math.sqrt(2 / 576), rel=0.1)
    assert all(layer.weight.std().item() == pytest.approx(0.0589, rel=0.15) for layer in convolutions(authors))
    scales = torch.cat([layer.weight for layer in authors.layers if isinstance(layer, nn.BatchNorm2d)])
    assert scales.std().item() == pytest.approx(0.0589, rel=0.1) and scales.min() < 0
    assert all((p == 0).all() for name, p in he.named_parameters() if name.endswith("bias"))


# ---- resizing, luminance, JPEG ------------------------------------------------------

# Keys' kernel at the distances 1/4, 3/4, 5/4 and 7/4.
QUARTERS = [0.8671875, 0.2265625, -0.0703125, -0.0234375]


def test_enlarging_twice_has_the_known_weights():
    near, mid, far, farthest = QUARTERS
    weights = degrade.resizing_weights(9, 2)
    assert weights.shape == (18, 9)
    assert weights[8, 2:6].tolist() == pytest.approx([farthest, mid, near, far])
    assert weights[9, 3:7].tolist() == pytest.approx([far, near, mid, farthest])


def test_shrinking_to_half_widens_the_kernel_and_normalises_it():
    near, mid, far, farthest = (weight / 2 for weight in QUARTERS)
    row = degrade.resizing_weights(20, 0.5)[5]
    assert row[7:15].tolist() == pytest.approx([farthest, far, mid, near, near, mid, far, farthest])
    assert row.sum() == pytest.approx(1)


def test_the_edge_is_mirrored_edge_pixel_first():
    near, mid, far, farthest = QUARTERS
    assert degrade.resizing_weights(9, 2)[0, :3].tolist() == pytest.approx([near + mid, far + farthest, 0])


@pytest.mark.parametrize("scale", [2, 3, 4, 1 / 2, 1 / 3, 1 / 4])
@pytest.mark.parametrize("shape", [(12, 24), (13, 17, 3), (3, 2)])
def test_resizing_against_one_pixel_at_a_time(scale, shape):
    old = np.random.default_rng(0).random(shape)
    new = degrade.imresize(old, scale)
    assert new.shape[:2] == (math.ceil(shape[0] * scale), math.ceil(shape[1] * scale))
    for y, x in itertools.product(range(0, new.shape[0], 3), range(0, new.shape[1], 3)):
        np.testing.assert_allclose(new[y, x], one_pixel(old, y, x, scale), atol=1e-12)


def one_pixel(old: np.ndarray, y: int, x: int, scale: float) -> np.ndarray:
    """The sum over a generous neighbourhood, as the definition has it."""

    def kernel(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t <= 2 else 0.0

    def neighbours(position: int, length: int) -> list[tuple[int, float]]:
        centre, stretch = (position + 0.5) / scale - 0.5, min(scale, 1)
        found = [(k, kernel(stretch * (centre - k))) for k in range(math.floor(centre) - 12, math.floor(centre) + 13)]
        total = sum(weight for _, weight in found)
        mirrored = [*range(length), *reversed(range(length))]
        return [(mirrored[k % (2 * length)], weight / total) for k, weight in found]

    rows, columns = neighbours(y, old.shape[0]), neighbours(x, old.shape[1])
    return sum(a * b * old[r, c] for r, a in rows for c, b in columns)


def test_bytes_are_rounded_and_saturated():
    step = np.zeros((8, 8), np.uint8)
    step[:, 4:] = 255
    floating = degrade.imresize(step.astype(float), 2)
    assert floating.min() < -1 and floating.max() > 256  # the kernel overshoots
    assert degrade.imresize(step, 2).dtype == np.uint8
    assert np.array_equal(degrade.imresize(step, 2), half_up(floating))


@pytest.mark.parametrize("scale", [3, 1 / 2])
def test_bytes_are_rounded_after_the_rows_and_again_after_the_columns(scale):
    """As in Matlab, whose imresize resizes one dimension after the other, each to the type of its input."""
    old = np.random.default_rng(0).integers(256, size=(14, 22), dtype=np.uint8)
    rows, columns = (degrade.resizing_weights(side, scale) for side in old.shape)
    assert np.array_equal(degrade.imresize(old, scale), half_up(half_up(rows @ old) @ columns.T))
    assert not np.array_equal(degrade.imresize(old, scale), half_up(rows @ old @ columns.T))


def test_luminance_of_known_colours():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert degrade.luminance(colours).tolist() == [[16, 235, 81, 145, 41]]
    np.testing.assert_allclose(degrade.luminance(colours / 255.0) * 255, degrade.luminance(colours), atol=0.5)
    assert np.array_equal(degrade.luminance(colours[..., 0]), colours[..., 0])


def test_jpeg_spoils_more_at_lower_quality():
    clean = picture(64, 48)
    errors = [np.abs(degrade.jpeg(clean, quality) - clean.astype(float)).mean() for quality in (5, 20, 99)]
    assert errors[0] > errors[1] > errors[2] and degrade.jpeg(clean, 5).shape == (64, 48)


def test_super_resolution_sees_a_blurred_picture_of_the_same_size():
    for clean in (picture(36, 48), picture(36, 48, 3)):
        spoilt = degrade.small_and_large_again(clean, 3)
        assert spoilt.shape == (36, 48) and 0.001 < np.abs(spoilt - degrade.luminance(clean / 255.0)).mean() < 0.2
    assert degrade.crop_to_multiple(picture(37, 50), 4).shape == (36, 48)


# ---- PSNR, SSIM, the test noise -----------------------------------------------------


def test_psnr_and_ssim_are_scikit_images():
    clean, spoilt = picture(40, 51), degrade.jpeg(picture(40, 51), 20)
    a, b = (torch.from_numpy(part.copy())[None, None].float() for part in (spoilt, clean))
    assert psnr(a, b).item() == pytest.approx(peak_signal_noise_ratio(clean, spoilt, data_range=255), abs=1e-9)
    assert ssim(a, b).item() == pytest.approx(structural_similarity(clean, spoilt, **SSIM_OF_2004), abs=1e-7)
    assert ssim(b, b).item() == pytest.approx(1)


def test_psnr_of_colour_is_over_all_channels():
    a, b = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    a[0, 0] = 3
    assert psnr(a, b).tolist() == pytest.approx([10 * math.log10(255**2 / 3), math.inf])


def test_to_8bit_rounds_halves_up_and_saturates():
    values = torch.tensor([-0.5, 0.0, 0.5 / 255, 1.4 / 255, 1.0, 1.7])
    assert to_8bit(values).tolist() == [0, 0, 1, 1, 255, 255]


def identity(channels: int = 1) -> nn.Sequential:
    """A network whose residual is zero."""
    layer = nn.Conv2d(channels, channels, 3, padding=1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer)


def noisy_pictures(labels, sigma=25.0, **options) -> dict[int, torch.Tensor]:
    found = {}
    for numbers, noisy, _ in noisy_sets.noisy_groups(labels, sigma, "cpu", **options):
        found |= dict(zip(numbers, noisy, strict=True))
    return found


def test_noise_is_neither_clipped_nor_rounded():
    labels = [torch.zeros(1, 64, 64), torch.full((1, 64, 48), 255.0), torch.zeros(1, 64, 64)]
    noisy = noisy_pictures(labels)
    assert noisy[0].min() < -0.2 and noisy[1].max() > 1.2
    assert (noisy[0] * 255).frac().abs().gt(0.01).float().mean() > 0.9
    for number, label in enumerate(labels):
        noise = noisy[number] * 255 - label
        assert noise.std().item() == pytest.approx(25, rel=0.05) and abs(noise.mean().item()) < 2
    assert torch.equal(noisy[0], noisy[2]), "the generator starts anew before every picture"


def test_the_common_mistake_is_clipped_and_rounded():
    noisy = noisy_pictures([torch.zeros(1, 64, 64)], quantised=True)[0] * 255
    assert noisy.min() == 0 and torch.allclose(noisy, noisy.round(), atol=1e-4)


def test_twice_the_level_is_twice_the_noise():
    labels = [torch.zeros(1, 8, 9)]
    assert torch.allclose(noisy_pictures(labels, 50.0)[0], 2 * noisy_pictures(labels, 25.0)[0])


def test_noise_is_what_the_manual_of_matlab_4_prints():
    """R = randn(3, 4), when randn has not been used before in the session."""
    printed = [
        [1.1650, 0.3516, 0.0591, 0.8717],
        [0.6268, -0.6965, 1.7971, -1.4462],
        [0.0751, 1.6961, 0.2641, -0.7012],
    ]
    assert randn(torch.Size((1, 3, 4)))[0].numpy().round(4).tolist() == printed


def test_uniform_numbers_are_the_minimal_standards_one_by_one():
    state, expected = matlab_noise.START, []
    for _ in range(1000):
        state = 16807 * state % (2**31 - 1)
        expected.append(state / (2**31 - 1))
    assert matlab_noise.uniform(1000).tolist() == expected
    assert [matlab_noise.uniform(count)[-1] for count in (1, 2, 3, 999)] == [expected[k] for k in (0, 1, 2, 998)]


def test_colours_get_their_noise_one_after_the_other():
    colour, grey = randn(torch.Size((3, 5, 7))), randn(torch.Size((1, 5, 21)))
    assert torch.equal(torch.cat(list(colour), dim=1), grey[0]), "Matlab stores the channels behind each other"
    large = randn(torch.Size((3, 321, 481)))
    assert (
        large.shape == (3, 321, 481) and abs(large.mean()) < 0.005 and large.std().item() == pytest.approx(1, abs=0.005)
    )


def test_pictures_are_grouped_by_shape_and_none_is_lost(monkeypatch):
    monkeypatch.setitem(noisy_sets.PIXELS_AT_ONCE, "cpu", 200)
    labels = [torch.zeros(1, *shape) for shape in [(10, 9), (9, 10), (10, 9), (10, 9), (30, 30)]]
    assert noisy_sets.groups_of_one_shape(labels, "cpu") == [[0, 2], [3], [1], [4]]


# ---- patches ------------------------------------------------------------------------


def test_the_grid_gives_the_papers_204800_patches():
    grid = grid_patches(Pictures([np.zeros((180, 180), np.uint8)] * 400, 40, "cpu"))
    assert len(grid) == 204_800 == 128 * 1600 == VARIANTS["sigma25-authors"].patches
    places = torch.stack([grid.picture, grid.top, grid.left, grid.turn])
    assert places.unique(dim=1).shape[1] == 204_800
    assert (grid.top.max(), grid.left.max(), grid.turn.max()) == (140, 140, 7)


SIZES = [(30, 41, 3), (25, 25, 3), (44, 26, 3)]


def test_patches_are_what_slicing_and_turning_gives():
    originals = [picture(*size, seed=number) for number, size in enumerate(SIZES)]
    pictures = Pictures(originals, 12, "cpu")
    patches = random_patches(pictures, 50, generator(0, "cut"))
    turned = patches.turned(torch.arange(50) % 8)
    for n, patch in enumerate(pictures.cut(turned)):
        top, left = turned.top[n].item(), turned.left[n].item()
        expected = originals[turned.picture[n]][top : top + 12, left : left + 12]
        expected = np.rot90(expected, n % 4)
        expected = expected if n % 8 < 4 else expected[:, ::-1]
        assert np.array_equal(patch.permute(1, 2, 0).numpy(), expected)


def test_the_eight_turns_differ():
    rows, columns = preparing.turned_steps(3)
    assert (
        len({(tuple(r.flatten().tolist()), tuple(c.flatten().tolist())) for r, c in zip(rows, columns, strict=True)})
        == 8
    )


def test_random_patches_reach_every_place_and_none_beyond():
    pictures = Pictures([picture(*size) for size in [(8, 10), (9, 9), (7, 30)]], 8, "cpu")
    patches = random_patches(pictures, 5000, generator(0, "places"))
    places = set(zip(patches.picture.tolist(), patches.top.tolist(), patches.left.tolist(), strict=True))
    assert places == {(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)}


def test_pictures_smaller_than_a_patch_are_told():
    with pytest.raises(UsageError, match="--side 40"):
        Pictures([picture(20, 20), picture(39, 100)], 40, "cpu")


def test_a_patch_of_dncnn_3_lies_in_every_version_of_its_picture():
    """50 and 60 pixels are 48 and 60 where three divides them: of 50 there is no patch in the first picture."""
    inputs, _ = preparing.spoilt_versions([picture(50, 60), picture(52, 61, 3)], 0)
    versions = Pictures(inputs, 50, "cpu")
    patches, _ = preparing.shared_patches(versions, 500, generator(0, "places"))
    assert set((patches.picture // preparing.VERSIONS).tolist()) == {1}
    assert (patches.top.min(), patches.top.max(), patches.left.min(), patches.left.max()) == (0, 1, 0, 10)
    assert versions.cut(patches).shape == (500, 1, 50, 50)
    alone = Pictures(inputs[: preparing.VERSIONS], 50, "cpu")
    with pytest.raises(UsageError, match="--side 50: no training picture is that large"):
        preparing.shared_patches(alone, 500, generator(0, "places"))


def test_an_epoch_shows_every_patch_once_and_parts_of_it_show_all_in_turn():
    assert sorted(train.patches_of_epoch(0, 1, 100, PRINTED).tolist()) == list(range(100))
    parts = Recipe(epoch_patches=25)
    seen = [train.patches_of_epoch(0, epoch, 100, parts) for epoch in range(1, 9)]
    assert sorted(torch.cat(seen[:4]).tolist()) == sorted(torch.cat(seen[4:]).tolist()) == list(range(100))
    assert not torch.equal(seen[0], seen[4]) and not torch.equal(seen[0], train.patches_of_epoch(1, 1, 100, parts))


def material(**changes) -> tuple[train.Material, Recipe]:
    recipe = Recipe(side=12, **changes)
    shapes = [(32, 32), (32, 35, 3), (40, 32)] if recipe.three_tasks else [(32, 32)] * 3  # T91 may hold both kinds
    collection = preparing.Collection({str(n): picture(*shape, seed=n) for n, shape in enumerate(shapes)}, {})
    return train.prepare(collection, recipe, 0, "cpu"), recipe


def batch(made: train.Material, recipe: Recipe, which, seed=0, epoch=1, number=0):
    return train.noisy_batch(made, torch.tensor(which), made.patches.turn, recipe, seed, epoch, number)


@pytest.mark.parametrize("noise", ["once", "fresh"])
def test_noise_is_drawn_once_or_in_every_epoch(noise):
    made, recipe = material(noise=noise)
    y, v = batch(made, recipe, [3, 5, 7])
    assert y.shape == v.shape == (3, 1, 12, 12)
    torch.testing.assert_close((y - v) * 255, made.targets.cut(made.patches[torch.tensor([3, 5, 7])]).float())
    assert torch.equal(batch(made, recipe, [3, 5, 7])[0], y)
    assert torch.equal(batch(made, recipe, [3, 5, 7], epoch=2)[1], v) == (noise == "once")
    assert torch.equal(batch(made, recipe, [7, 5, 3])[1].flip(0), v) == (noise == "once")


def test_fresh_noise_depends_on_seed_epoch_and_batch():
    made, recipe = material()
    drawn = [batch(made, recipe, [0, 1], *which)[1] for which in [(0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1)]]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))


def test_noise_has_the_recipes_level():
    level = train.draw_noise(400, Recipe(sigma=(15, 15)), generator(0, "level"))
    assert level.std().item() == pytest.approx(15 / 255, rel=0.01)
    blind = train.draw_noise(400, Recipe(sigma=(0, 55)), generator(0, "level")).std(dim=(1, 2, 3)) * 255
    assert blind.min() < 3 and 52 < blind.max() < 58 and blind.mean().item() == pytest.approx(27.5, rel=0.08)


def test_versions_of_dncnn_3():
    pictures = [picture(25, 31, 3), picture(26, 33)]
    inputs, targets = preparing.spoilt_versions(pictures, 0)
    assert [part.shape for part in inputs] == [part.shape for part in targets]
    assert [part.shape for part in inputs[:4]] == [(25, 31), (24, 30), (24, 30), (24, 28)]
    assert len(inputs) == 2 * preparing.VERSIONS
    same = [np.array_equal(a, b) for a, b in zip(inputs, targets, strict=True)]
    assert same.count(True) == 2 and same[0] and same[preparing.VERSIONS]
    assert all(part.dtype == np.uint8 for part in (*inputs, *targets))


def test_dncnn_3_shares_patches_equally_and_adds_noise_to_a_third():
    made, recipe = material(three_tasks=True, cutting="random", patches=6000, sigma=(0, 55))
    assert made.noisy.mean().item() == pytest.approx(1 / 3, abs=0.02)
    version = made.patches.picture % preparing.VERSIONS
    assert (made.noisy == (version == 0)).all()
    counts = torch.bincount(version) / 6000
    assert counts[1:4].tolist() == pytest.approx([1 / 9] * 3, abs=0.02)
    assert counts[4:].tolist() == pytest.approx([1 / 15] * 5, abs=0.02)
    _, v = batch(made, recipe, range(60))
    spoilt = made.inputs.cut(made.patches[torch.arange(60)]).float() - made.targets.cut(made.patches[torch.arange(60)])
    noisy = made.noisy[:60] == 1
    torch.testing.assert_close(v[~noisy] * 255, spoilt[~noisy], rtol=0, atol=1e-4)
    noise = train.draw_noise(60, recipe, train.device_generator(v.device, 0, "noise", 1, 0))
    torch.testing.assert_close(v[noisy], noise[noisy], rtol=0, atol=1e-6)


def test_patches_of_the_grid_keep_their_turn_and_others_change_theirs():
    made, recipe = material()
    assert torch.equal(train.turns_of_epoch(0, 5, made.patches, recipe), made.patches.turn)
    made, recipe = material(cutting="random", patches=4000)
    first, second, other_seed = (
        train.turns_of_epoch(*which, made.patches, recipe) for which in [(0, 1), (0, 2), (1, 1)]
    )
    for turns in (first, second, other_seed):
        assert (torch.bincount(turns, minlength=8) / 4000).tolist() == pytest.approx([1 / 8] * 8, abs=0.02)
    assert not torch.equal(first, second) and not torch.equal(first, other_seed)


# ---- the recipe ---------------------------------------------------------------------


def test_the_printed_rate_falls_exponentially_from_1e_1_to_1e_4():
    for variant in ("sigma15-printed", "sigma25-printed", "sigma50-printed", "blind-printed"):
        rates = [rate_of_epoch(VARIANTS[variant], epoch) for epoch in range(1, 51)]
        assert rates == pytest.approx([10 ** (-1 - 3 * (epoch - 1) / 49) for epoch in range(1, 51)])
        assert VARIANTS[variant].epochs == 50


def test_the_authors_rate_is_1e_3_for_30_epochs_and_1e_4_for_20():
    for variant in ("sigma25-authors", "blind-authors", "colour-blind", "three-tasks"):
        rates = [rate_of_epoch(VARIANTS[variant], epoch) for epoch in range(1, 51)]
        assert rates == [1e-3] * 30 + [1e-4] * 20 and VARIANTS[variant].epochs == 50
    with pytest.raises(ValueError):
        rate_of_epoch(AUTHORS, 51)


def test_recipes_have_the_papers_numbers():
    assert (PRINTED.optimiser, PRINTED.momentum, PRINTED.weight_decay, PRINTED.batch_size) == ("sgd", 0.9, 1e-4, 128)
    assert (PRINTED.noise, PRINTED.initial_weights, PRINTED.restart) == ("fresh", "he", False)
    assert (AUTHORS.optimiser, AUTHORS.noise, AUTHORS.batch_size) == ("adam", "once", 128)
    assert (AUTHORS.restart, AUTHORS.initial_weights, AUTHORS.bn_momentum) == (True, "authors", 1.0)
    assert (AUTHORS.clip, AUTHORS.weight_decay) == (0.0, 0.0)
    for name, variant in VARIANTS.items():
        special = name.startswith(("sigma", "fig2"))
        assert (variant.depth, variant.side) == ((17, 40) if special else (20, 50))
        level = 25.0 if name.startswith("fig2") else float(name[5:7]) if special else None
        assert variant.sigma == ((level, level) if special else (0.0, 55.0))
    assert VARIANTS["blind-printed"].patches == 128 * 3000 and VARIANTS["three-tasks"].patches == 128 * 8000
    assert set(VARIANTS) == set(PAPER.variants)


def test_an_hour_is_quick_of_all_pictures_in_half_as_many_epochs():
    hour, quick = VARIANTS["sigma25-hour"], recipe("sigma25-authors", "quick")
    assert 2 * hour.epochs == quick.epochs
    assert replace(hour, held_out=True, learning_rate=quick.learning_rate) == quick
    assert hour.epochs * hour.epoch_patches < 204_800, "no patch comes twice"
    assert [rate_of_epoch(hour, epoch) for epoch in range(1, 9)] == [1e-3] * 6 + [1e-4] * 2


def test_the_variants_of_figure_2_differ_in_nothing_else():
    """Two optimisers; under each, residual learning or not and batch normalization or not."""
    names = [name for name in VARIANTS if name.startswith("fig2")]
    for optimiser in ("sgd", "adam"):
        whole = VARIANTS[f"fig2-{optimiser}-residual-bn"]
        found = {name.removeprefix(f"fig2-{optimiser}-"): VARIANTS[name] for name in names if optimiser in name}
        assert found == {
            "residual-bn": whole,
            "residual-no-bn": replace(whole, batch_norm=False),
            "direct-bn": replace(whole, residual=False),
            "direct-no-bn": replace(whole, residual=False, batch_norm=False),
        }
        assert (whole.optimiser, whole.held_out, whole.noise, whole.momentum) == (optimiser, False, "fresh", 0.9)
        assert whole.residual and whole.batch_norm and whole.sigma == (25, 25)
    assert len(names) == 8


@pytest.mark.parametrize(("batch_norm", "parameters"), [(True, 556_097), (False, 555_137)])
def test_parameters_of_the_networks_of_figure_2(batch_norm, parameters):
    """A bias takes the place of a scale and a shift."""
    model = train.build_model(replace(VARIANTS["fig2-sgd-direct-bn"], batch_norm=batch_norm))
    assert sum(p.numel() for p in model.parameters()) == parameters and not model.residual


def test_noise_levels_that_are_measured():
    measured = {name: (variant.test_sigmas, train.curve_sigma(variant)) for name, variant in VARIANTS.items()}
    assert measured["sigma15-printed"] == ((15,), 15) and measured["sigma50-authors"] == ((50,), 50)
    assert measured["blind-printed"] == measured["three-tasks"] == ((15, 25, 50), 25)


def test_presets_shorten_only():
    for variant, full in VARIANTS.items():
        assert recipe(variant, "full") == full
        for preset, standin in (("quick", False), ("smoke", True), ("full", True)):
            short = recipe(variant, preset, standin)
            assert short.epochs * short.epoch_patches < 400_000
            rates = [rate_of_epoch(short, epoch) for epoch in range(1, short.epochs + 1)]
            assert rates[0] == rate_of_epoch(full, 1) and rates[-1] == rate_of_epoch(full, full.epochs)
        assert recipe(variant, "quick").held_out, "quick never reads a test set"
    assert recipe("sigma25-authors", "quick").epochs == recipe("sigma25-printed", "quick").epochs == 16


def test_loss_and_step_against_the_formulas():
    """Eq. 1 and SGD with momentum and weight decay, written out for two steps."""
    model = DnCNN(3)
    initialise(model, "he", generator(0, "step"))
    optimiser = train.make_optimiser(model, PRINTED)
    weight = convolutions(model)[1].weight
    expected, velocity = weight.detach().clone(), torch.zeros_like(weight)
    for seed in (0, 1):
        y, v = uniform(4, 1, 9, 9, seed=seed), uniform(4, 1, 9, 9, seed=seed + 2) - 0.5
        copy = DnCNN(3).train()
        copy.load_state_dict(model.state_dict())
        loss = sum(0.5 * ((r - t) ** 2).sum() for r, t in zip(copy(y), v, strict=True)) / 4
        gradient = torch.autograd.grad(loss, convolutions(copy)[1].weight)[0]
        velocity = 0.9 * velocity + gradient + 1e-4 * expected
        expected = expected - 0.1 * velocity
        assert train.update(model, optimiser, y, v, torch.float32).item() == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-5)


def test_the_authors_step_is_adams():
    """Kingma and Ba's update with their constants, written out for three steps, the moments forgotten at none."""
    model = DnCNN(3)
    initialise(model, "authors", generator(0, "step"))
    optimiser = train.make_optimiser(model, AUTHORS)
    weight = convolutions(model)[1].weight
    expected, mean, square = weight.detach().clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    for step in (1, 2, 3):
        y, v = uniform(4, 1, 9, 9, seed=step), uniform(4, 1, 9, 9, seed=step + 3) - 0.5
        copy = DnCNN(3).train()
        copy.load_state_dict(model.state_dict())
        loss = ((copy(y) - v) ** 2).sum() / 8
        gradient = torch.autograd.grad(loss, convolutions(copy)[1].weight)[0]
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        expected = expected - 1e-3 * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        train.update(model, optimiser, y, v, torch.float32)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_a_clipped_step_goes_no_farther_than_the_limit():
    model = DnCNN(3)
    initialise(model, "he", generator(0, "clip"))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimiser = train.make_optimiser(model, Recipe(weight_decay=0.0))
    y, v = uniform(4, 1, 9, 9), uniform(4, 1, 9, 9, seed=1) * 9
    train.update(model, optimiser, y, v, torch.float32, gradient_limit=0.005 / 0.1)
    steps = [(now - was).abs().max().item() for now, was in zip(model.parameters(), before, strict=True)]
    assert max(steps) == pytest.approx(0.005 / 4, rel=1e-3)  # the limit is of the batch's sum, here of four


def test_weight_decay_is_for_convolutions_only():
    model = DnCNN(5)
    decayed, others = train.make_optimiser(model, PRINTED).param_groups
    assert [p.shape for p in decayed["params"]] == [layer.weight.shape for layer in convolutions(model)]
    assert decayed["weight_decay"] == 1e-4 and others["weight_decay"] == 0
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    "words",
    ["--sigma [30,20]", "--sigma [-1,5]", "--learning-rate []", "--learning-rate [[0,1,1]]",
     "--learning-rate [[3,1,0]]", "--batch-size 1", "--batch-size 1000000", "--depth 2", "--depth 10000", "--side 4",
     "--side 20000", "--patches 100000000000", "--epoch-patches 0",
     "--clip -1", "--momentum -0.1", "--bn-momentum 1.5", "--weight-decay -1e-4"],
)  # fmt: skip
def test_a_recipe_that_makes_no_sense_is_refused(words):
    with pytest.raises(UsageError, match=words.split()[0]):
        override(PRINTED, words.split())


def test_every_field_of_the_recipe_is_explained_as_an_option():
    for option, explained in described_fields(Recipe):
        assert re.match("(Sec|code|open|ours).*default: ", explained), option


def test_a_recipe_that_does_not_fit_the_pictures_is_refused():
    with pytest.raises(UsageError, match="--epoch-patches 900000: there are"):
        material(epoch_patches=900_000)
    with pytest.raises(UsageError, match="--noise once: 10,000,000 patches take 64 GB. Use fresh."):
        train.noise_kept(10**7, Recipe(), 0, "cpu")
    collection = preparing.Collection({"a": picture(32, 32)}, {})
    with pytest.raises(UsageError, match="--channels 3: the pictures to train on have 1"):
        train.prepare(collection, Recipe(side=12, channels=3), 0, "cpu")


# ---- the data -----------------------------------------------------------------------


def standin(variant: str = "sigma25-authors") -> LocatedData:
    return LocatedData(PAPER.variants[variant].dataset, "stand-in", None, {})


def test_stand_in_pictures_are_photographs_of_the_right_kind():
    for variant, colour in (("sigma25-authors", False), ("colour-blind", True), ("three-tasks", True)):
        collection = load(standin(variant))
        assert len(collection.train) == 32
        assert all(part.shape[:2] == (180, 180) for part in collection.train.values())
        every = [*collection.train.values(), *(p for test in collection.tests.values() for p in test.values())]
        assert all((part.ndim == 3) == colour and part.std() > 3 for part in every)


def test_held_out_pictures_train_no_longer_and_hide_the_test_sets():
    whole, part = load(standin()), load(standin(), held_out=True)
    assert list(part.tests) == ["held-out"]
    assert sorted([*part.train, *part.tests["held-out"]]) == sorted(whole.train)
    assert len(part.tests["held-out"]) == 4 and whole.split_hash() != part.split_hash()


def given(tmp_path, name: str, content: np.ndarray | bytes) -> LocatedData:
    (tmp_path / name).parent.mkdir(parents=True)
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        Image.fromarray(content).save(tmp_path / name)
    return LocatedData(name.split("/")[0], "given", tmp_path, {name: ""})


def damaged_png() -> bytes:
    """With a chunk whose name was overwritten."""
    file = io.BytesIO()
    Image.fromarray(picture(50, 50)).save(file, "PNG")
    return file.getvalue().replace(b"IDAT", b"\0DAT")


@pytest.mark.parametrize(
    ("dataset", "name", "content", "said"),
    [("bsd", "Train400/a.png", np.zeros((5, 5, 3), np.uint8), "is in colour"),
     ("bsd_colour", "Train432/a.png", np.zeros((5, 5), np.uint8), "is grey"),
     ("three_tasks", "BSD68/a.png", np.zeros((5, 5, 3), np.uint8), "is in colour"),
     ("bsd", "Train400/a.png", b"no picture", "cannot be read as a picture"),
     ("bsd", "Train400/a.png", damaged_png(), "cannot be read as a picture")],
)  # fmt: skip
def test_a_file_of_the_wrong_kind_is_a_data_error(tmp_path, dataset, name, content, said):
    located = given(tmp_path, name, content)
    with pytest.raises(DataError, match=f"a.png {said}"):
        load(LocatedData(dataset, "given", located.folder, located.files))


def test_a_users_three_task_pictures_are_found_by_their_folders(tmp_path):
    passport = find_passport("three_tasks", PAPER.folder)
    (edition,) = passport.editions.values()
    for folder, count in edition.folders.items():
        for number in range(count):
            path = tmp_path / "three_tasks" / folder / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 5) if folder == "BSD68" else (4, 5, 3), number, np.uint8)).save(path)
    collection = load(locate(passport, tmp_path))
    assert len(collection.train) == 291 and {k: len(v) for k, v in collection.tests.items()} == {
        "bsd68": 68, "set5": 5, "set14": 14, "bsd100": 100, "urban100": 100, "classic5": 5, "live1": 29,
    }  # fmt: skip
    assert not passport.counts("given"), "nobody could check these pictures"


def test_a_test_set_may_be_a_dataset_by_itself(tmp_path):
    located = given(tmp_path, "Set5/a.png", np.zeros((5, 6, 3), np.uint8))
    collection = load(LocatedData("set5", "official", located.folder / "Set5", {"a.png": ""}))
    assert not collection.train and list(collection.tests) == ["set5"]
    assert collection.tests["set5"]["a.png"].shape == (5, 6, 3)
    located = given(tmp_path, "BSD68/a.png", np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(DataError, match="a.png is in colour"):
        load(LocatedData("bsd68", "official", located.folder / "BSD68", {"a.png": ""}))


def test_the_test_sets_are_the_same_files_alone_and_in_bsd():
    whole = find_passport("bsd", PAPER.folder).editions["official"].files
    assert len(whole) == 480 and all(file.sha256 and file.urls for file in whole.values())
    for dataset, folder in (("set12", "Set12"), ("bsd68", "BSD68")):
        alone = find_passport(dataset, PAPER.folder)
        assert alone.folder == f"bsd/{folder}"
        for name, file in alone.editions["official"].files.items():
            assert whole[f"{folder}/{name}"] == file and file.urls[0].endswith(f"/testsets/{folder}/{name}")


def test_real_pictures_have_their_counts_and_sizes():
    collection = load(real_data(find_passport("bsd", PAPER.folder)))
    assert {part.shape for part in collection.train.values()} == {(180, 180)} and len(collection.train) == 400
    assert {part.shape for part in collection.tests["bsd68"].values()} == {(321, 481), (481, 321)}
    assert [part.shape[0] for part in collection.tests["set12"].values()] == [256] * 7 + [512] * 5
    assert len(collection.tests["bsd68"]) == 68


def test_held_out_pictures_of_the_quick_preset():
    collection = load(real_data(find_passport("bsd", PAPER.folder)), held_out=True)
    assert len(collection.train) == 360 and len(collection.tests["held-out"]) == 40


# ---- evaluation ---------------------------------------------------------------------


@pytest.mark.slow
def test_every_claims_protocol_is_measured_and_every_protocol_explained():
    found = {}
    for variant in PAPER.variants:
        short = recipe(variant, "smoke")
        kind = short.depth, short.sigma, standin(variant).dataset  # variants that train differently are measured alike
        if kind not in found:
            model = train.build_model(short)
            initialise(model, "he", generator(0, "evaluated"))
            found[kind] = evaluate(model.state_dict(), short, standin(variant), "cpu")
        measured = found[kind]
        assert set(measured.metrics) <= set(PAPER.protocols)
        for claim in PAPER.claims:
            if claim.variant == variant and not beyond_the_standin(claim.protocol):
                assert claim.metric in measured.metrics[claim.protocol], claim.id
        for name, values in measured.details.items():
            assert measured.metrics[name.removesuffix(": each picture")]["psnr"] == pytest.approx(np.mean(values))


def beyond_the_standin(protocol: str) -> bool:
    """Its Set12 has two pictures."""
    return re.fullmatch(r"set12-(0[3-9]|1[0-2])-sigma\d\d", protocol) is not None


def brightening(channels: int = 1) -> nn.Sequential:
    """A network whose residual is about a quarter of the picture, less a tenth of white. No byte comes out halfway
    between two."""
    found = identity(channels)
    with torch.no_grad():
        found[0].weight[:, :, 1, 1] = 0.2345 * torch.eye(channels)
        found[0].bias.fill_(-25.6 / 255)
    return found


@pytest.mark.parametrize(
    ("variant", "test", "sigma"),
    [("sigma25-authors", "bsd68", 25), ("blind-authors", "bsd68", 15), ("blind-authors", "set12", 50),
     ("three-tasks", "bsd68", 25)],
)  # fmt: skip
def test_denoising_is_measured_as_written(variant, test, sigma, monkeypatch, capsys):
    """Against NumPy and scikit-image, picture by picture."""
    monkeypatch.setattr(measuring, "load_network", lambda *_: brightening())
    metrics = evaluate({}, recipe(variant, "smoke"), standin(variant), "cpu").metrics
    pictures = [degrade.luminance(part).astype(np.float64) for part in load(standin(variant)).tests[test].values()]

    def found(rounded_input: bool = False, rounded_output: bool = True, score=psnr_of) -> list[float]:
        values = []
        for clean in pictures:
            noisy = clean + sigma * randn(torch.Size((1, *clean.shape)))[0].numpy()
            noisy = half_up(noisy) if rounded_input else noisy
            denoised = 0.7655 * noisy + 25.6
            denoised = half_up(denoised) if rounded_output else denoised
            values.append(score(clean, denoised))
        return values

    protocol, mean = f"{test}-sigma{sigma}", np.mean(found())
    assert f"{protocol}: {mean:.3f} dB" in capsys.readouterr().err
    assert metrics[protocol]["psnr"] == pytest.approx(mean, abs=1e-4)
    floating, mistaken = np.mean(found(rounded_output=False)), np.mean(found(rounded_input=True))
    assert metrics[f"{protocol}-float"]["psnr"] == pytest.approx(floating, abs=1e-4)
    assert metrics[f"{protocol}-8bit-input"]["psnr"] == pytest.approx(mistaken, abs=1e-4)
    assert abs(mistaken - mean) > 5e-4, "so that one taken for the other would show"
    if test == "set12":
        for number, value in enumerate(found(), start=1):
            assert metrics[f"set12-{number:02d}-sigma{sigma}"]["psnr"] == pytest.approx(value, abs=1e-4)
    if variant == "three-tasks":
        assert metrics[protocol]["ssim"] == pytest.approx(np.mean(found(score=ssim_of)), abs=1e-6)


def psnr_of(clean: np.ndarray, found: np.ndarray) -> float:
    return peak_signal_noise_ratio(clean, found, data_range=255)


def ssim_of(clean: np.ndarray, found: np.ndarray) -> float:
    return structural_similarity(clean, found, **SSIM_OF_2004)


def half_up(values: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to 255, as in Matlab."""
    return np.clip(np.floor(values + 0.5), 0, 255)


SSIM_OF_2004 = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}


def on_average(pairs) -> list[float]:
    """PSNR and SSIM of pairs of pictures, by scikit-image."""
    return [np.mean([score(clean, spoilt) for clean, spoilt in pairs]) for score in (psnr_of, ssim_of)]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_super_resolution_is_measured_unrounded_and_without_its_border(scale):
    """Of a network that leaves pictures as they are: that of the enlarged picture itself."""
    pictures = [picture(40, 51, 3, seed=1), picture(45, 38, seed=2)]
    found = mean_of_pictures(super_resolved(identity(), pictures, scale, "cpu"))
    pairs = []
    for clean in pictures:
        height, width = (side // scale * scale for side in clean.shape[:2])
        whole = clean[:height, :width]
        inner = np.s_[scale : height - scale, scale : width - scale]
        label = degrade.luminance(whole / 255.0) * 255
        pairs.append((label[inner], degrade.small_and_large_again(whole, scale)[inner] * 255))
    assert [found["psnr"], found["ssim"]] == pytest.approx(on_average(pairs), abs=1e-4)


@pytest.mark.parametrize("quality", [10, 40])
def test_deblocking_is_measured_on_rounded_luminance_with_its_border(quality):
    """Of a network that makes pictures brighter, so that rounding and saturation count."""
    pictures = [picture(40, 51, 3, seed=1), picture(45, 38, seed=2)]
    found = mean_of_pictures(deblocked(brightening(), pictures, quality, "cpu"))
    clean = [degrade.luminance(part) for part in pictures]
    spoilt = [half_up(0.7655 * degrade.jpeg(part, quality) + 25.6) for part in clean]
    pairs = [(a.astype(np.float64), b) for a, b in zip(clean, spoilt, strict=True)]
    assert [found["psnr"], found["ssim"]] == pytest.approx(on_average(pairs), abs=1e-4)


def test_weights_of_another_variant_are_refused():
    with pytest.raises(UsageError, match="another model"):
        evaluate(DnCNN(20).state_dict(), VARIANTS["sigma25-authors"], standin(), "cpu")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(23, 31), (23, 31, 3)])
def test_pictures_of_any_kind_are_restored(channels, shape):
    model = network(5, channels)
    original = picture(*shape)
    restored = restore(model.state_dict(), Recipe(depth=5, channels=channels), original, "cpu")
    assert restored.shape == shape and restored.dtype == np.uint8
    planes = torch.from_numpy(np.atleast_3d(original).transpose(2, 0, 1).copy()).float() / 255
    if channels == 1:  # each colour by itself
        expected = torch.stack([(plane[None, None] - model(plane[None, None]))[0, 0] for plane in planes])
    else:
        seen = planes.expand(3, -1, -1)[None]
        expected = (seen - model(seen))[0]
        expected = expected if len(shape) == 3 else expected.mean(dim=0, keepdim=True)
    expected = to_8bit(expected).permute(1, 2, 0).detach().numpy().reshape(shape)
    assert np.abs(restored - expected).max() <= 1


# ---- the page -----------------------------------------------------------------------


def test_the_page_shows_every_try_and_the_frozen_recipe_was_tried():
    tries = choose.known_tries(choose.FILE)
    runs, held_out = choose.known_tries(choose.QUICK_FILE), choose.known_tries(choose.HELD_OUT_FILE)
    assert choose.page_block(tries, runs, held_out) in choose.PAGE.read_text(encoding="utf-8")
    assert len(tries) == sum(len(seeds) for _, seeds in choose.TRIES)
    ((_, first, last),) = PRINTED.learning_rate
    frozen = {"rate": first, "last_rate": last, "initial_weights": PRINTED.initial_weights, "clip": PRINTED.clip}
    (found,) = [row for row in tries if all(row[name] == str(value) for name, value in frozen.items())]
    assert found["held_out_psnr"] != choose.DIVERGED


def test_the_quick_preset_is_one_that_was_run():
    quick = recipe("sigma25-authors", "quick")
    as_kept = {
        "batch_size": str(quick.batch_size),
        "bn_momentum": str(quick.bn_momentum),
        "learning_rate": str([list(part) for part in quick.learning_rate]),
    }
    runs = [run for run in choose.known_tries(choose.QUICK_FILE) if run["variant"] == "sigma25-authors"]
    assert any(as_kept.items() <= run.items() for run in runs)
