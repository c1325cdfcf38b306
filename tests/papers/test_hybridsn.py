"""HybridSN against the paper's own numbers, and its splits against what they promise."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.io import savemat
from sklearn.decomposition import PCA

from common.base import paths
from common.base.errors import DataError, UsageError
from common.claims.papers import load_paper
from common.data.matlab import read_matrix
from common.data.passports import DataAbsent, LocatedData, find_passport, locate
from common.training.determinism import generator
from common.training.recipes import option_name, override
from papers.hybridsn import data, train
from papers.hybridsn.data import (
    SCENES,
    Scene,
    Windows,
    apart_from,
    block_numbers,
    disjoint_split,
    load,
    principal_axes,
    project,
    random_split,
    remaining,
    share_of_windows_with_training_pixels,
    synthetic_scene,
)
from papers.hybridsn.eval import evaluate, split_of
from papers.hybridsn.model import DROPOUT, HybridSN, dropout, initialise, reshape_1
from papers.hybridsn.scoring import accuracies, confusion_matrix, predict
from papers.hybridsn.train import (
    NETWORKS,
    TRAINING_PIXELS,
    VARIANTS,
    Recipe,
    gradients,
    learning_rate,
    recipe,
    split_pixels,
    windows_of,
)

INDIAN_PINES = load_paper("hybridsn").passport("indian_pines-random30")
STAND_IN = LocatedData("indian_pines", "stand-in", None, {})
SCENE_SIZES = {  # of the three scenes: components, classes, parameters (paper: Table I; the others follow from it)
    "indian_pines": (30, 16, 5_122_176),
    "pavia_university": (15, 9, 4_844_793),
    "salinas": (15, 16, 4_845_696),
}


@pytest.fixture(scope="module")
def real_scene() -> Scene:
    try:
        return load(locate(INDIAN_PINES))
    except DataAbsent as absent:
        pytest.skip(f"needs real data: {absent} Name a folder that has it in $REPRO_DATA.")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return synthetic_scene()


def small_model(window: int = 9, bands: int = 13, classes: int = 6, seed: int = 0) -> HybridSN:
    model = HybridSN(window, bands, classes)
    initialise(model, generator(seed, "test"))
    return model


def random_windows(count: int, window: int = 9, bands: int = 13) -> torch.Tensor:
    return torch.randn(count, 1, window, window, bands, generator=generator(0, "windows"))


# ---- Table I ---------------------------------------------------------------------------


def test_every_row_of_table_1():
    """Output shapes as the paper writes them (rows, columns, bands, filters), and parameters."""
    shapes = {}
    model = HybridSN(window=25, bands=30, classes=16)
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda _, __, output, name=name: shapes.update({name: tuple(output.shape[1:])}))
    model.conv2d_1.register_forward_pre_hook(lambda _, x: shapes.update(reshape_1=tuple(x[0].shape[1:])))
    model.dense_1.register_forward_pre_hook(lambda _, x: shapes.update(flatten_1=tuple(x[0].shape[1:])))
    model.eval()(torch.zeros(1, 1, 25, 25, 30))
    filters_last = {name: (*shape[1:], shape[0]) if len(shape) > 1 else shape for name, shape in shapes.items()}
    assert filters_last == {
        "conv3d_1": (23, 23, 24, 8), "conv3d_2": (21, 21, 20, 16), "conv3d_3": (19, 19, 18, 32),
        "reshape_1": (19, 19, 576), "conv2d_1": (17, 17, 64), "flatten_1": (18_496,),
        "dense_1": (256,), "dense_2": (128,), "dense_3": (16,),
    }  # fmt: skip
    assert {name: sum(p.numel() for p in layer.parameters()) for name, layer in model.named_children()} == {
        "conv3d_1": 512, "conv3d_2": 5_776, "conv3d_3": 13_856, "conv2d_1": 331_840,
        "dense_1": 4_735_232, "dense_2": 32_896, "dense_3": 2_064,
    }  # fmt: skip


@pytest.mark.parametrize("name", SCENE_SIZES)
def test_parameters_of_each_scene(name):
    components, classes, parameters = SCENE_SIZES[name]
    assert len(SCENES[name].classes) == classes
    assert VARIANTS[f"{name}-random30"].components == components
    assert sum(p.numel() for p in HybridSN(25, components, classes).parameters()) == parameters


@pytest.mark.parametrize(("window", "parameters"), [(19, 2_369_664), (21, 3_156_096), (23, 4_073_600), (25, 5_122_176)])
def test_parameters_of_the_windows_of_table_4(window, parameters):
    model = HybridSN(window, 30, 16)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.eval()(torch.zeros(2, 1, window, window, 30)).shape == (2, 16)


@pytest.mark.parametrize(("window", "bands", "said"), [(7, 30, "--window 7"), (24, 30, "odd"), (25, 12, "13 or more")])
def test_a_window_too_small_for_the_kernels_is_refused(window, bands, said):
    with pytest.raises(UsageError, match=said):
        HybridSN(window, bands, 16)


@pytest.mark.parametrize(
    ("network", "convolutions", "parameters"),
    [
        ("2d", {"conv2d_1": (23, 23, 48), "conv2d_2": (21, 21, 96), "conv2d_3": (19, 19, 192),
                "conv2d_4": (17, 17, 64)}, 5_101_504),
        ("3d", {"conv3d_1": (23, 23, 24, 8), "conv3d_2": (21, 21, 20, 16), "conv3d_3": (19, 19, 18, 32),
                "conv3d_4": (17, 17, 16, 4)}, 4_793_796),
    ],
)  # fmt: skip
def test_networks_of_one_kind_of_convolution_are_about_as_large(network, convolutions, parameters):
    """As their docstrings say; from the 64 maps on they are HybridSN."""
    shapes, hybrid, model = {}, HybridSN(25, 30, 16), NETWORKS[network](25, 30, 16)
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda _, __, output, name=name: shapes.update({name: tuple(output.shape[1:])}))
    assert model.eval()(torch.zeros(1, 1, 25, 25, 30)).shape == (1, 16)
    dense = {"dense_1", "dense_2", "dense_3"}
    assert {name: (*shape[1:], shape[0]) for name, shape in shapes.items() if name not in dense} == convolutions
    for name in dense:
        assert getattr(model, name).weight.shape == getattr(hybrid, name).weight.shape
    ours, theirs = (sum(p.numel() for p in one.parameters()) for one in (model, hybrid))
    assert ours == parameters and 0.93 < ours / theirs < 1


def test_the_2d_network_sees_bands_as_maps_and_the_3d_one_as_an_axis():
    """Rolled along the spectrum, a window gives the inner bands of the 3-D network's maps rolled as far."""
    x = random_windows(2, bands=20)
    flat, deep = (NETWORKS[network](9, 20, 6) for network in ("2d", "3d"))
    for model in (flat, deep):
        initialise(model, generator(0, "test"))
    expected = x[:, 0].permute(0, 3, 1, 2)
    for layer in (flat.conv2d_1, flat.conv2d_2, flat.conv2d_3, flat.conv2d_4):
        expected = F.conv2d(expected, layer.weight, layer.bias).clamp(min=0)
    torch.testing.assert_close(flat.convolve(x), expected)
    maps, rolled = (deep.convolve(part)[:, :, 0, 0].view(2, 6, 4) for part in (x, x.roll(1, dims=4)))
    torch.testing.assert_close(rolled[:, 1:], maps[:, :-1])


def test_a_fourth_3d_convolution_needs_two_bands_more():
    with pytest.raises(UsageError, match="--components 14: 15 or more"):
        Recipe(network="3d", components=14)


def test_the_reshape_puts_bands_before_filters():
    """As Keras has it: the last two axes of (rows, columns, bands, filters) become one, filter fastest."""
    x = torch.randn(2, 32, 5, 5, 18, generator=generator(0, "reshape"))
    flat = reshape_1(x)
    assert flat.shape == (2, 576, 5, 5)
    assert torch.equal(flat[:, 7 * 32 + 3], x[:, 3, :, :, 7])


def test_the_network_against_its_formula():
    """The same in loops over nothing but inner products, in float64."""
    model = small_model().double().eval()
    x = random_windows(2).double()
    h = x
    for layer in (model.conv3d_1, model.conv3d_2, model.conv3d_3):
        k = layer.weight.shape[2:]
        patches = h.unfold(2, k[0], 1).unfold(3, k[1], 1).unfold(4, k[2], 1)
        h = torch.einsum("ncxyzabd,fcabd->nfxyz", patches, layer.weight) + layer.bias[:, None, None, None]
        h = h.clamp(min=0)
    n, filters, rows, columns, bands = h.shape
    h = torch.stack([h[:, f, :, :, b] for b in range(bands) for f in range(filters)], dim=1)
    h = torch.einsum("ncxyab,fcab->nfxy", h.unfold(2, 3, 1).unfold(3, 3, 1), model.conv2d_1.weight)
    h = (h + model.conv2d_1.bias[:, None, None]).clamp(min=0)
    h = h.permute(0, 2, 3, 1).reshape(n, -1)
    for layer in (model.dense_1, model.dense_2):
        h = (h @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(model(x), h @ model.dense_3.weight.T + model.dense_3.bias)


def test_dropout_is_off_at_test_time_and_on_in_training():
    model, x = small_model(), random_windows(4)
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    outputs = [model(x, generator(0, "dropout", index)) for index in (0, 0, 1)]
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    with pytest.raises(ValueError, match="needs a generator"):
        model(x)


def test_dropout_zeroes_two_fifths_and_keeps_the_mean():
    x = torch.ones(200, 500)
    y = dropout(x, generator(0, "dropout"))
    assert DROPOUT == 0.4 and abs((y == 0).float().mean() - 0.4) < 0.01
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert abs(y.mean() - 1) < 0.01


def test_initial_weights_are_glorots():
    model = HybridSN(25, 30, 16)
    initialise(model, generator(0, "test"))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
            continue
        outputs, inputs, *kernel = parameter.shape
        bound = (6 / ((inputs + outputs) * np.prod(kernel))) ** 0.5
        assert parameter.abs().max() <= bound, name
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.1), name


def test_initial_weights_do_not_depend_on_the_memory_format():
    """They are drawn in the order of their shapes, one layer after the other."""
    model, draw = small_model(), generator(0, "test")
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            drawn = torch.nn.init.xavier_uniform_(torch.empty(parameter.shape), generator=draw)
            assert torch.equal(parameter, drawn), name


# ---- windows and principal components ------------------------------------------------------


def test_a_window_is_what_lies_around_its_pixel():
    bands = np.random.default_rng(0).normal(size=(12, 15, 3)).astype(np.float32)
    windows = Windows(bands, 5, "cpu")
    pixels = np.arange(12 * 15)
    cut = windows.around(torch.from_numpy(pixels))
    assert cut.shape == (180, 1, 5, 5, 3) and cut.is_contiguous()
    padded = np.zeros((16, 19, 3), np.float32)
    padded[2:-2, 2:-2] = bands
    for pixel in pixels:
        row, column = divmod(int(pixel), 15)
        assert np.array_equal(cut[pixel, 0].numpy(), padded[row : row + 5, column : column + 5])


def test_the_windows_of_a_scene_take_no_memory_of_their_own():
    windows = Windows(np.zeros((145, 145, 30), np.float32), 25, "cpu")
    assert windows._all.numel() == 145 * 145 * 25 * 25 * 30
    assert windows._all.untyped_storage().nbytes() == 169 * 169 * 30 * 4


def reduce_bands(cube: np.ndarray, components: int, fitted_on: np.ndarray | None) -> np.ndarray:
    return project(cube, principal_axes(cube, components, fitted_on))


def test_principal_components_are_white(scene):
    bands = reduce_bands(scene.cube, 13, None).reshape(-1, 13).astype(np.float64)
    assert bands.mean(axis=0) == pytest.approx(np.zeros(13), abs=1e-5)
    assert np.cov(bands.T) == pytest.approx(np.eye(13), abs=1e-4)


def test_principal_components_of_some_pixels_do_not_see_the_others(scene):
    some = np.arange(500)
    bands = reduce_bands(scene.cube, 13, some)
    spectra = scene.cube.reshape(-1, scene.cube.shape[2])
    expected = PCA(13, whiten=True, svd_solver="full").fit(spectra[some]).transform(spectra)
    assert bands.reshape(-1, 13) == pytest.approx(expected, abs=1e-5)
    altered = scene.cube.copy()
    altered[-1] = 0
    assert np.array_equal(reduce_bands(altered, 13, some)[:-1], bands[:-1])
    assert not np.allclose(reduce_bands(altered, 13, None)[:-1], reduce_bands(scene.cube, 13, None)[:-1])


def test_more_components_than_bands_are_refused(scene):
    with pytest.raises(UsageError, match="--components 41: at most 40 here"):
        reduce_bands(scene.cube, 41, None)


def reduced_at(pixels: np.ndarray, scene: Scene, split, rules: Recipe) -> torch.Tensor:
    """The components of single pixels, as training sees them."""
    windows = windows_of(scene, split, rules, "cpu").around(torch.from_numpy(pixels))
    return windows[:, 0, rules.window // 2, rules.window // 2]


@pytest.mark.parametrize("variant", ["indian_pines-disjoint", "indian_pines-random30"])
def test_components_see_pixels_to_test_on_in_the_papers_protocol_only(scene, variant):
    rules = recipe(variant, "smoke")
    split = split_pixels(scene.truth, rules, 0)
    other = scene.cube.copy().reshape(-1, scene.cube.shape[2])
    untouched = np.isin(np.arange(len(other)), split.train)
    other[~untouched] = np.random.default_rng(0).normal(size=other[~untouched].shape)
    changed = replace(scene, cube=other.reshape(scene.cube.shape))
    one, two = (reduced_at(split.train, some, split, rules) for some in (scene, changed))
    assert torch.equal(one, two) == (rules.protocol == "disjoint")


# ---- splits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pavia_university", "salinas"])
def test_split_sizes_of_the_other_scenes_on_their_real_ground_truth(name):
    paper, files = load_paper("hybridsn"), SCENES[name]
    _, truth_file = files.editions["official"]
    file = Path(os.environ.get("REPRO_DATA", "."), paper.passport(f"{name}-random30").folder, truth_file)
    if not file.exists():
        pytest.skip(f"needs real data: no {truth_file} in $REPRO_DATA.")
    truth = read_matrix(file, files.truth_variable).astype(np.int64)
    for share in (30, 20, 10, 5):
        variant = f"{name}-random{share}"
        split = split_pixels(truth, VARIANTS[variant], 0)
        assert paper.variants[variant].splits == {"train": len(split.train), "test": len(split.test)}
    seen = share_of_windows_with_training_pixels(random_split(truth, 0.3, 0), truth.shape, 25)
    assert seen == 100
    assert len(disjoint_split(truth, 0.3, 25, 4, 0).test) > 10_000


def test_split_sizes_are_the_papers(real_scene):
    split = random_split(real_scene.truth, 0.3, seed=0)
    assert (len(split.train), len(split.test)) == (3_074, 7_175)


def test_the_sizes_that_paper_yaml_states_are_those_of_the_splits(real_scene):
    for name, variant in load_paper("hybridsn").variants.items():
        if name.startswith("indian_pines-random"):
            split = split_pixels(real_scene.truth, VARIANTS[name], 0)
            assert variant.splits == {"train": len(split.train), "test": len(split.test)}


def test_the_class_sizes_in_paper_yaml_are_those_of_the_ground_truth(real_scene):
    paper, truth = load_paper("hybridsn"), real_scene.truth
    assert paper.class_sizes["indian_pines"] == np.bincount(truth.flat)[1:].tolist()
    tested = np.bincount(truth.flat[random_split(truth, 0.3, seed=0).test])[1:]
    examples = len(tested) ** 2 / np.sum(1 / tested)  # of what average accuracy is as coarse as a share
    assert paper.examples("indian_pines-random30", "aa") == pytest.approx(examples, rel=0.03)


@pytest.mark.parametrize("share", [0.3, 0.2, 0.1, 0.05])
def test_a_random_split_is_stratified_and_complete(scene, share):
    split = random_split(scene.truth, share, seed=0)
    assert np.array_equal(np.union1d(split.train, split.test), np.flatnonzero(scene.truth))
    assert len(np.intersect1d(split.train, split.test)) == 0 and split.dropped == ()
    counts = [np.bincount(scene.truth.flat[part], minlength=7)[1:] for part in (split.train, split.test)]
    assert counts[0] == pytest.approx(share * (counts[0] + counts[1]), abs=1)
    again, other = (random_split(scene.truth, share, seed) for seed in (0, 1))
    assert again.hash() == split.hash() != other.hash()


def test_at_30_percent_every_test_window_holds_training_pixels(real_scene):
    split = random_split(real_scene.truth, 0.3, seed=0)
    assert share_of_windows_with_training_pixels(split, real_scene.truth.shape, 25) == 100


def windows_meet(test: int, train: np.ndarray, columns: int, window: int) -> bool:
    """Whether a training pixel lies in the window around a test pixel, by its definition."""
    rows, columns = np.divmod(np.append(train, test), columns)
    return bool(((abs(rows[:-1] - rows[-1]) <= window // 2) & (abs(columns[:-1] - columns[-1]) <= window // 2)).any())


@pytest.mark.parametrize("seed", range(3))
def test_no_window_of_a_disjoint_split_holds_a_training_pixel(scene, seed):
    split = disjoint_split(scene.truth, 0.3, window=25, blocks=4, seed=seed)
    assert len(split.train) and len(split.test)
    assert not any(windows_meet(int(pixel), split.train, 96, 25) for pixel in split.test)
    assert share_of_windows_with_training_pixels(split, scene.truth.shape, 25) == 0


def test_the_share_counts_windows_that_meet(scene):
    split = random_split(scene.truth, 0.05, seed=0)
    met = [windows_meet(int(pixel), split.train, 96, 9) for pixel in split.test]
    assert 0 < np.mean(met) < 1
    assert share_of_windows_with_training_pixels(split, scene.truth.shape, 9) == pytest.approx(100 * np.mean(met))


def test_a_disjoint_split_scores_classes_on_both_sides_and_lists_others(real_scene):
    truth = real_scene.truth
    split = disjoint_split(truth, 0.3, window=25, blocks=4, seed=0)
    trained, tested = (set(truth.flat[part]) for part in (split.train, split.test))
    assert tested <= trained
    assert set(split.dropped) == set(range(1, 17)) - tested and split.dropped
    assert len(tested) >= 10


def test_the_training_pixels_of_a_disjoint_split_fill_whole_blocks(scene):
    split = disjoint_split(scene.truth, 0.3, window=25, blocks=4, seed=0)
    region = block_numbers(scene.truth.shape, 4)
    blocks = np.unique(region.flat[split.train])
    assert len(blocks) <= 5  # 0.3 of 16
    assert set(split.train) == set(np.flatnonzero((scene.truth > 0) & np.isin(region, blocks)))


def test_the_seed_varies_the_regions(scene):
    hashes = {disjoint_split(scene.truth, 0.3, 25, 4, seed).hash() for seed in (0, 1, 2, 0)}
    assert len(hashes) == 3


def test_a_split_follows_from_its_training_pixels(scene):
    """So weights that bring them along can be measured without knowing the seed."""
    for split, again in (
        (s := random_split(scene.truth, 0.3, 0), remaining(s.train, scene.truth)),
        (s := disjoint_split(scene.truth, 0.3, 25, 4, 0), apart_from(s.train, scene.truth, 25)),
    ):
        assert again.hash() == split.hash() and again.dropped == split.dropped


def test_a_scene_without_room_for_a_disjoint_split_is_refused():
    with pytest.raises(UsageError, match="leaves pixels to test on with windows of 25"):
        disjoint_split(np.ones((12, 12), np.int64), 0.3, 25, 4, 0)


def test_a_share_that_leaves_nothing_is_refused(scene):
    with pytest.raises(UsageError, match="--training-share 0.0001"):
        random_split(scene.truth, 0.0001, 0)


# ---- the files --------------------------------------------------------------------------------


def official(name: str, folder) -> LocatedData:
    return LocatedData(name, "official", folder, {}, vouched=SCENES[name].editions["official"])


def made_up(name: str, folder) -> tuple[np.ndarray, np.ndarray]:
    """Files of the right shape, with made-up content: all classes, a cube that differs everywhere."""
    files = SCENES[name]
    draw = np.random.default_rng(0)
    truth = draw.integers(0, len(files.classes) + 1, files.shape[:2])
    cube = draw.integers(0, 9000, files.shape).astype(np.uint16)
    cube_file, truth_file = files.editions["official"]
    savemat(folder / truth_file, {files.truth_variable: truth.astype(np.uint8)})
    savemat(folder / cube_file, {files.cube_variable: cube})
    return cube, truth


@pytest.mark.parametrize("name", SCENES)
def test_the_official_files_of_each_scene_are_read(name, tmp_path):
    cube, truth = made_up(name, tmp_path)
    loaded = load(official(name, tmp_path))
    assert np.array_equal(loaded.cube, cube) and np.array_equal(loaded.truth, truth)
    assert loaded.truth.dtype == np.int64 and loaded.classes == SCENES[name].classes


@pytest.mark.parametrize("name", SCENES)
def test_the_passport_lists_what_is_read(name):
    passport = find_passport(name, load_paper("hybridsn").folder)
    files = SCENES[name]
    assert {edition: set(entry.files) for edition, entry in passport.editions.items()} == {
        edition: set(names) for edition, names in files.editions.items()
    }
    sizes = {"indian_pines": 10_249, "pavia_university": 42_776, "salinas": 54_129}
    assert passport.splits == {"labelled": sizes[name]}
    for variant, entry in load_paper("hybridsn").variants.items():
        if entry.dataset == name and entry.splits:
            assert sum(entry.splits.values()) == sizes[name], variant


def test_the_real_ground_truth_has_as_many_labels_as_the_passport_says(real_scene):
    assert np.count_nonzero(real_scene.truth) == INDIAN_PINES.splits["labelled"]
    assert real_scene.cube.shape == (145, 145, 200)


SHIPPED = INDIAN_PINES.editions["tensorly"]


@pytest.fixture(scope="module")
def shipped_scene() -> Scene:
    """Indian Pines as it is there right after the install."""
    folder = SHIPPED.package.locate()
    if folder is None:
        pytest.skip("needs the Python package tensorly.")
    return load(LocatedData("indian_pines", "tensorly", folder, {}, vouched=tuple(SHIPPED.files)))


def test_the_scene_is_there_after_the_install(shipped_scene, monkeypatch, tmp_path):
    monkeypatch.delenv("REPRO_DATA", raising=False)
    monkeypatch.setattr(paths, "DATA", tmp_path)
    found = locate(INDIAN_PINES)
    assert (found.edition, found.folder) == ("tensorly", SHIPPED.package.locate())
    assert found.files == {name: file.sha256 for name, file in SHIPPED.files.items()}
    assert INDIAN_PINES.counts("tensorly")


def test_the_shipped_arrays_are_those_of_the_evidence(shipped_scene):
    cube, truth = shipped_scene.arrays()
    assert (cube["type"], cube["shape"], truth["shape"]) == ("uint16", [145, 145, 200], [145, 145])
    assert cube["sha256"] in SHIPPED.evidence and truth["sha256"] in SHIPPED.evidence
    assert (shipped_scene.cube.min(), shipped_scene.cube.max()) == (955, 9604)
    assert " ".join(map(str, shipped_scene.cube[0, 0, :10])) in SHIPPED.evidence


def test_a_mat_file_and_an_npy_file_of_a_scene_give_the_same_hashes(shipped_scene, tmp_path):
    files = SCENES["indian_pines"]
    cube_file, truth_file = files.editions["official"]
    savemat(tmp_path / cube_file, {files.cube_variable: shipped_scene.cube})
    savemat(tmp_path / truth_file, {files.truth_variable: shipped_scene.truth.astype(np.uint8)})
    assert load(official("indian_pines", tmp_path)).arrays() == shipped_scene.arrays()


def test_hashes_of_arrays_notice_one_changed_value(shipped_scene):
    cube = shipped_scene.cube.copy()
    cube[7, 8, 9] += 1
    changed = replace(shipped_scene, cube=cube).arrays()
    assert [one == two for one, two in zip(changed, shipped_scene.arrays(), strict=True)] == [False, True]


def small(monkeypatch):
    files = replace(SCENES["indian_pines"], shape=(20, 20, 30))
    monkeypatch.setitem(data.SCENES, "indian_pines", files)
    return files, np.ones((20, 20, 30)), np.ones((20, 20))


WRONG = {
    "cube of another shape": (lambda cube, truth: (cube[:-1], truth), r"shape \(19, 20, 30\), not \(20, 20, 30\)"),
    "truth of another shape": (lambda cube, truth: (cube, truth[:, :-1]), r"indian_pines_gt: has shape \(20, 19\)"),
    "label out of range": (
        lambda cube, truth: (cube, truth * 17),
        "from 17 to 17, where whole numbers from 0 to 16",
    ),
    "label that is not whole": (lambda cube, truth: (cube, truth * 1.5), "labels from 1.5 to 1.5, where"),
    "a stray label": (lambda cube, truth: (cube, np.where(np.eye(20), 1e12, truth)), "from 1 to 1e\\+12, where"),
    "not a number": (lambda cube, truth: (cube * np.nan, truth), "holds values that are not numbers"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_content_is_told(mistake, monkeypatch, tmp_path):
    files, cube, truth = small(monkeypatch)
    change, said = WRONG[mistake]
    cube, truth = change(cube, truth)
    cube_file, truth_file = files.editions["official"]
    savemat(tmp_path / cube_file, {files.cube_variable: cube})
    savemat(tmp_path / truth_file, {files.truth_variable: truth})
    with pytest.raises(DataError, match=said):
        load(official("indian_pines", tmp_path))


def test_a_missing_variable_and_a_file_that_is_none_are_told(monkeypatch, tmp_path):
    files, cube, truth = small(monkeypatch)
    cube_file, _ = files.editions["official"]
    savemat(tmp_path / cube_file, {"something_else": cube})
    located = official("indian_pines", tmp_path)
    with pytest.raises(DataError, match="has no variable 'indian_pines_corrected'"):
        load(located)
    for content in (b"", b"no matrix", b"MATLAB 5.0 MAT-file" + bytes(200)):
        (tmp_path / cube_file).write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as a MATLAB file"):
            load(located)


# ---- the recipe -----------------------------------------------------------------------------------


def test_the_recipe_is_the_papers():
    for name, components in (("indian_pines", 30), ("pavia_university", 15), ("salinas", 15)):
        full = VARIANTS[f"{name}-random30"]
        assert (full.components, full.window, full.epochs, full.batch_size) == (components, 25, 100, 256)
        assert [learning_rate(full, step) for step in (0, 1, 1300)] == [0.001] * 3
    assert [VARIANTS[f"salinas-random{share}"].training_share for share in (30, 20, 10, 5)] == [0.3, 0.2, 0.1, 0.05]


def test_the_decay_of_the_authors_code():
    """Keras divides the rate by 1 + decay times the updates done."""
    authors = replace(VARIANTS["indian_pines-random30"], decay=1e-6)
    for step in (0, 1, 12, 1299):
        assert learning_rate(authors, step) == 1e-3 / (1 + 1e-6 * step)


NEVER_NEGATIVE = [
    "epochs", "batch_size", "blocks", "training_share", "decay", "learning_rate", "epsilon", "components", "window",
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, -1) for field in NEVER_NEGATIVE]
    + [("window", 101), ("window", 24), ("blocks", 51)]
    + [("epochs", 10**21), ("batch_size", 10**21)],
)
def test_values_that_make_no_sense_are_refused(field, value):
    option = option_name(field)
    with pytest.raises(UsageError, match=f"{option} {value}"):
        override(Recipe(), [option, str(value)])


@pytest.mark.parametrize("variant", VARIANTS)
def test_quick_takes_updates_enough_to_be_seen_to_learn(variant):
    quick, splits = recipe(variant, "quick"), load_paper("hybridsn").variants[variant].splits
    if splits:
        assert quick.epochs * -(-splits["train"] // quick.batch_size) >= 120
    assert quick == replace(VARIANTS[variant], epochs=quick.epochs) and quick.epochs * quick.training_share == 3


def test_presets_shorten_and_nothing_else():
    full = VARIANTS["indian_pines-disjoint"]
    assert recipe("indian_pines-disjoint", "full") == full
    assert recipe("indian_pines-disjoint", "quick") == replace(full, epochs=10)
    assert recipe("indian_pines-disjoint", "full", standin=True) == replace(full, epochs=8)
    smoke = recipe("indian_pines-disjoint", "smoke")
    assert (smoke.protocol, smoke.training_share) == (full.protocol, full.training_share)


# ---- gradients and scores ----------------------------------------------------------------------------


def gradient(model, windows, pixels, labels, precision=torch.float32):
    losses, correct = gradients(model, windows, pixels, labels, generator(0, "dropout"), precision)
    return torch.cat([p.grad.flatten() for p in model.parameters()]), losses, correct


def test_the_parts_of_a_batch_give_the_batchs_gradient(monkeypatch):
    """In one piece by autograd, without dropout; and in parts of three."""
    bands = np.random.default_rng(0).normal(size=(20, 20, 13)).astype(np.float32)
    windows, model = Windows(bands, 9, "cpu"), small_model().eval()
    pixels, labels = torch.arange(0, 400, 50), torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
    logits = model(windows.around(pixels))
    F.cross_entropy(logits, labels).backward()
    whole = torch.cat([p.grad.flatten() for p in model.parameters()])
    monkeypatch.setitem(train.WINDOWS_AT_ONCE, "cpu", 3)
    parts, losses, correct = gradient(model, windows, pixels, labels)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    assert losses == pytest.approx(8 * F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert correct == int((logits.argmax(dim=1) == labels).sum())


def test_bfloat16_changes_the_gradient_little():
    bands = np.random.default_rng(0).normal(size=(20, 20, 13)).astype(np.float32)
    windows, model = Windows(bands, 9, "cpu"), small_model().eval()
    pixels, labels = torch.arange(0, 400, 50), torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
    exact, _, _ = gradient(model, windows, pixels, labels)
    rounded, _, _ = gradient(model, windows, pixels, labels, torch.bfloat16)
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.05


def test_scores_against_their_definitions():
    label = np.array([1, 1, 1, 1, 2, 2, 3, 3])
    predicted = np.array([1, 1, 1, 2, 2, 2, 3, 4])  # class 4 is nobody's
    assert accuracies(predicted, label) == {
        "oa": pytest.approx(100 * 6 / 8),
        "aa": pytest.approx(100 * (3 / 4 + 1 + 1 / 2) / 3),
        "kappa": pytest.approx(100 * (6 / 8 - 20 / 64) / (1 - 20 / 64)),  # by chance: 4*3 + 2*3 + 2*1 of 64
    }
    assert confusion_matrix(predicted, label, 4) == [[3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


def test_predictions_are_those_of_the_network_in_the_pixels_order(monkeypatch):
    bands = np.random.default_rng(0).normal(size=(12, 12, 13)).astype(np.float32)
    windows, model = Windows(bands, 9, "cpu"), small_model()
    pixels = np.array([140, 3, 77])
    logits = small_model().eval()(windows.around(torch.from_numpy(pixels)))
    monkeypatch.setattr("papers.hybridsn.scoring.AT_ONCE", 2)
    assert predict(model, windows, pixels, "cpu").tolist() == (logits.argmax(dim=1) + 1).tolist()


# ---- weights ------------------------------------------------------------------------------------------


def weights_of(train_pixels: np.ndarray, smoke: Recipe) -> dict[str, torch.Tensor]:
    model = HybridSN(smoke.window, smoke.components, 6)
    initialise(model, generator(0, "test"))
    return {**model.state_dict(), TRAINING_PIXELS: torch.from_numpy(train_pixels.astype(np.int32))}


def test_weights_bring_along_what_they_were_trained_on(scene):
    smoke = recipe("indian_pines-disjoint", "smoke")
    split = split_pixels(scene.truth, smoke, 0)
    measured = evaluate(weights_of(split.train, smoke), smoke, STAND_IN, "cpu")
    assert measured.metrics["last"]["seen_windows"] == 0
    assert np.sum(measured.details["confusion_matrix"]) == len(split.test)
    rows = measured.details["predicted_map"]
    assert len(rows) == 96 and all(len(row) == 96 and set(row) <= set("123456") for row in rows)


@pytest.mark.parametrize("pixels", [None, np.array([], int), np.array([0]), np.array([10**6])])
def test_weights_without_training_pixels_or_of_another_scene_are_refused(scene, pixels):
    smoke = recipe("indian_pines-random30", "smoke")
    assert scene.truth.flat[0] == 0
    weights = weights_of(np.array([0]) if pixels is None else pixels, smoke)
    if pixels is None:
        del weights[TRAINING_PIXELS]
    with pytest.raises(UsageError, match="These weights"):
        evaluate(weights, smoke, STAND_IN, "cpu")


@pytest.mark.parametrize(
    ("trained", "measured"), [("random10", "random30"), ("disjoint", "random30"), ("random30", "disjoint")]
)
def test_weights_of_another_split_are_refused(scene, trained, measured):
    """Else pixels that trained would test, or what lies nearer than a window would."""
    theirs, ours = (recipe(f"indian_pines-{name}", "smoke") for name in (trained, measured))
    ours = replace(ours, window=25) if measured == "disjoint" else ours
    train = split_pixels(scene.truth, theirs, 0).train
    with pytest.raises(UsageError, match="These weights (were trained on|leave no pixel)"):
        split_of(weights_of(train, theirs), scene, ours)


def test_the_stand_in_is_always_the_same_and_has_room_for_both_protocols(scene):
    again = synthetic_scene()
    assert np.array_equal(again.cube, scene.cube) and np.array_equal(again.truth, scene.truth)
    assert np.bincount(scene.truth.flat)[1:].min() > 100
    assert len(disjoint_split(scene.truth, 0.3, 25, 4, 0).test) > 300
