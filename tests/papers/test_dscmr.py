"""DSCMR: its counts, its losses against plain loops, its retrieval scores, its data, and its runs."""

import copy
import math
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.io import savemat
from sklearn.metrics import average_precision_score

from common.base.errors import DataAbsent, DataError, Interrupted, UsageError
from common.claims.papers import load_paper
from common.data.matlab import read_matrix
from common.data.passports import LocatedData, find_passport, locate
from common.training import checkpoint, provenance
from common.training.determinism import generator
from common.training.recipes import as_text, described_fields, option_name, override
from common.training.records import Record
from common.training.run import Job, Run, run_job
from papers.dscmr import figures, retrieval, train
from papers.dscmr.backpropagation import Backpropagation
from papers.dscmr.data import Pairs, load
from papers.dscmr.eval import evaluate
from papers.dscmr.model import DSCMR, J1, J2, J3, initialise, length
from papers.dscmr.train import VARIANTS, Recipe, metrics_of_curves, order_of_epoch, recipe
from tests.contract import helpers
from tests.contract.helpers import killed_after
from tests.papers.float16 import load_in_float16
from tests.papers.mistakes import spoil_checkpoint, step_off_by_one
from tests.papers.variants import the_others_slow
from tests.real_data import real_data

PAPER = load_paper("dscmr")
CODE = provenance.code(PAPER.name)


def stand_in(dataset: str = "wikipedia") -> LocatedData:
    return LocatedData(dataset, "stand-in", None, {})


def random(*shape: int, purpose: str = "test") -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0, purpose, index=sum(shape)), dtype=torch.float64)


# ---- the paper's counts, shapes and formulas --------------------------------------


@pytest.mark.parametrize(("classes", "count"), [(20, 11_125_780), (10, 11_115_530)])
def test_parameters(classes, count):
    """Pascal Sentence's 20 classes, and 10; features of 4,096 and 300 numbers."""
    assert sum(p.numel() for p in DSCMR(4096, 300, classes).parameters()) == count


def test_shapes_and_what_the_branches_share():
    model = DSCMR(4096, 300, 20)
    U, V = model(torch.rand(3, 4096), torch.rand(3, 300))
    assert U.shape == V.shape == (3, 1024) and model.P(U).shape == (3, 20)
    layers = {name: (layer.in_features, layer.out_features) for name, layer in model.named_children()}
    assert layers == {"image": (4096, 2048), "text": (300, 2048), "common": (2048, 1024), "P": (1024, 20)}


def test_the_branches_are_the_layers_written_out():
    model = DSCMR(7, 5, 3).double()
    images, texts = random(4, 7), random(4, 5)
    U, V = model(images, texts)
    for representation, layer, features in ((U, model.image, images), (V, model.text, texts)):
        hidden = (features @ layer.weight.T + layer.bias).clamp(min=0)
        torch.testing.assert_close(representation, hidden @ model.common.weight.T + model.common.bias)


def test_initial_weights_fill_their_bounds_and_depend_on_the_seed_only():
    first, again, other = (DSCMR(128, 10, 10) for _ in range(3))
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        initialise(model, generator(seed, "initial weights"))
    for name, layer in first.named_children():
        share = layer.weight.detach().abs() * math.sqrt(layer.in_features)
        assert 0.99 < share.max() <= 1 and abs(share.mean() - 0.5) < 0.02, name
        assert torch.equal(layer.weight, again.get_submodule(name).weight)
        assert not torch.equal(layer.bias, other.get_submodule(name).bias)


def rows(*shape: int, purpose: str) -> tuple[torch.Tensor, list[list[float]]]:
    matrix = random(*shape, purpose=purpose)
    return matrix, matrix.tolist()


def test_lengths_against_their_formulas():
    D, plain = rows(6, 4, purpose="length")
    per_row = [math.sqrt(sum(x * x for x in row)) for row in plain]
    assert length(D, "frobenius").item() == pytest.approx(math.sqrt(sum(r * r for r in per_row)) / 6)
    assert length(D, "sample").item() == pytest.approx(sum(per_row) / 6)
    alike = D[:1].expand(6, 4)
    assert length(alike, "sample").item() == pytest.approx(math.sqrt(6) * length(alike, "frobenius").item())


@pytest.mark.parametrize("norms", ["frobenius", "sample"])
def test_j1_and_j3_against_their_formulas(norms):
    model = DSCMR(7, 5, 3).double()
    U, V = random(6, 1024, purpose="U"), random(6, 1024, purpose="V")
    Y = F.one_hot(torch.tensor([0, 1, 2, 0, 1, 1]), 3).double()
    P, bias = model.P.weight.tolist(), model.P.bias.tolist()

    def distances(matrix):
        """How far each row's prediction is from its label."""
        predicted = [
            [sum(w * x for w, x in zip(P[c], row, strict=True)) + bias[c] for c in range(3)] for row in matrix.tolist()
        ]
        return [math.dist(p, y) for p, y in zip(predicted, Y.tolist(), strict=True)]

    def total(lengths):
        return sum(lengths) / 6 if norms == "sample" else math.sqrt(sum(x * x for x in lengths)) / 6

    assert J1(model, U, V, Y, norms).item() == pytest.approx(total(distances(U)) + total(distances(V)))
    apart = [math.dist(u, v) for u, v in zip(U.tolist(), V.tolist(), strict=True)]
    assert J3(U, V, norms).item() == pytest.approx(total(apart))


def test_j2_against_a_loop_over_all_pairs():
    (U, u), (V, v) = rows(6, 9, purpose="U"), rows(6, 9, purpose="V")
    labels = [0, 1, 2, 0, 1, 1]
    total = 0.0
    for one, other in ((u, u), (u, v), (v, v)):
        for i, a in enumerate(one):
            for j, b in enumerate(other):
                theta = sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b) / 2
                total += math.log(1 + math.exp(theta)) - (labels[i] == labels[j]) * theta
    Y = F.one_hot(torch.tensor(labels)).double()
    assert J2(U, V, Y).item() == pytest.approx(total / 36, rel=1e-12)


def random_batch(dtype):
    """A model and nine pairs of three classes."""
    model = DSCMR(128, 10, 10).to(dtype)
    initialise(model, generator(0, "test"))
    images, texts = (torch.rand(9, size, generator=generator(0, "test", size)).to(dtype) for size in (128, 10))
    return model, images, texts, F.one_hot(torch.arange(9) % 3, 10).to(dtype)


def backpropagation(model, norms="frobenius", precision=torch.float32, lam=0.2, eta=0.3):
    return Backpropagation(model, lam, eta, norms, precision)


@pytest.mark.parametrize("norms", ["frobenius", "sample"])
@pytest.mark.parametrize(("dtype", "precision", "error"), [
    (torch.float64, torch.float64, 1e-12), (torch.float32, torch.float32, 1e-5), (torch.float32, torch.bfloat16, 0.05),
])  # fmt: skip
def test_the_chain_rule_written_out_gives_what_autograd_does(norms, dtype, precision, error):
    model, images, texts, Y = random_batch(dtype)
    J = backpropagation(model, norms, precision)
    for _ in range(2):  # what was left from the step before must not count
        value = J(images, texts, Y)
    U, V = model(images, texts)
    expected = J1(model, U, V, Y, norms) + 0.2 * J2(U, V, Y) + 0.3 * J3(U, V, norms)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    assert value.item() == pytest.approx(expected.item(), rel=error)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad - gradient).norm() <= error * gradient.norm()


@pytest.mark.parametrize("part", ["J1", "J2", "J3"])
def test_every_loss_counts_by_its_weight(part):
    """Each gradient alone, so that none hides behind a larger one."""
    model, images, texts, Y = random_batch(torch.float64)
    weights = {"lam": 2.0 * (part == "J2"), "eta": 3.0 * (part == "J3")}
    J = backpropagation(copy.deepcopy(model), "sample", torch.float64, **weights)
    without = backpropagation(copy.deepcopy(model), "sample", torch.float64, lam=0.0, eta=0.0)
    difference = J(images, texts, Y) - (part != "J1") * without(images, texts, Y)
    U, V = model(images, texts)
    loss = {"J1": J1(model, U, V, Y, "sample"), "J2": 2 * J2(U, V, Y), "J3": 3 * J3(U, V, "sample")}[part]
    assert difference.item() == pytest.approx(loss.item(), rel=1e-9)
    branches = [name for name, _ in model.named_parameters() if not name.startswith("P.")]
    expected = torch.autograd.grad(loss, [model.get_parameter(name) for name in branches])
    for name, gradient in zip(branches, expected, strict=True):
        alone = J.model.get_parameter(name).grad - (part != "J1") * without.model.get_parameter(name).grad
        assert (alone - gradient).norm() <= 1e-9 * gradient.norm() + 1e-14  # J3 does not depend on common's bias


@pytest.mark.parametrize(("precision", "error"), [(torch.float32, 0.0), (torch.bfloat16, 0.02)])
def test_branches_follow_the_model(precision, error):
    model, images, texts, _ = random_batch(torch.float32)
    J = backpropagation(model, precision=precision)
    initialise(model, generator(1, "test"))
    assert (J.represent(images, texts)[0] - model(images, texts)[0]).norm() > 0.1
    J.follow()
    for theirs, own in zip(J.represent(images, texts), model(images, texts), strict=True):
        assert theirs.dtype == torch.float32
        assert (theirs - own).norm() <= error * own.norm()


@pytest.mark.parametrize("norms", ["frobenius", "sample"])
def test_the_chain_rule_written_out_is_finite_where_norms_vanish(norms):
    model, images, texts, _ = random_batch(torch.float32)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert backpropagation(model, norms)(images, texts, torch.zeros(9, 10)).isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_losses_have_finite_gradients_where_their_norms_vanish():
    U = torch.zeros(3, 1024, requires_grad=True)
    model = DSCMR(7, 5, 3)
    Y = model.P(U).detach()
    for norms in ("frobenius", "sample"):
        (gradient,) = torch.autograd.grad(J1(model, U, U, Y, norms) + J2(U, U, Y) + J3(U, U, norms), U)
        assert torch.isfinite(gradient).all()


def test_the_recipe_is_the_authors():
    for name, variant in VARIANTS.items():
        left_out = name.partition("-without-")[2]
        assert (variant.lam, variant.eta) == (0 if "j2" in left_out else 1e-3, 0 if "j3" in left_out else 1e-1)
        assert (variant.epochs, variant.batch_size) == (500, 100)
        assert (variant.learning_rate, variant.betas) == (1e-4, (0.5, 0.999))
    assert set(VARIANTS) == set(PAPER.variants)
    for name, variant in VARIANTS.items():
        assert (variant.norms == "sample") == name.endswith("sample-norms")
        assert (variant.order == "shuffled") == ("shuffled" in name)
        assert (variant.precision == "float32") == name.endswith("float32")
    assert VARIANTS["wikipedia-blocked"].order == "class"
    assert VARIANTS["pascal-blocked"].order == "file", "its files are in class blocks"


NONSENSE = [
    ("epochs", 0), ("batch_size", 0), ("learning_rate", 0.0), ("betas", (0.5, 1.0)), ("lam", -1e-3), ("eta", -0.1),
    ("epochs", 10**21), ("batch_size", 10**21), ("precision", "bfloat16"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), NONSENSE)
def test_values_that_make_no_sense_are_refused(field, value):
    option = option_name(field)
    with pytest.raises(UsageError, match=f"^{option}.*: .*should"):
        override(Recipe(), [option, as_text(value)])


def test_every_field_of_the_recipe_has_a_line_of_help():
    assert all(not line.startswith("[default") for _, line in described_fields(Recipe))


def test_presets_shorten_only():
    for variant, full in VARIANTS.items():
        assert recipe(variant, "full") == full
        for preset in ("quick", "smoke"):
            shorter = recipe(variant, preset)
            assert replace(shorter, epochs=full.epochs) == full and shorter.epochs < full.epochs


# ---- the order of the batches -----------------------------------------------------


def test_orders():
    labels = torch.tensor([2, 0, 1, 0, 2, 1])
    assert order_of_epoch(labels, 0, 4, Recipe(order="file")).tolist() == list(range(6))
    assert order_of_epoch(labels, 0, 4, Recipe(order="class")).tolist() == [1, 3, 2, 5, 0, 4]
    many = torch.zeros(50)
    shuffled = [order_of_epoch(many, seed, epoch, Recipe(order="shuffled")) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order.tolist()) == list(range(50)) for order in shuffled)
    assert len({tuple(order.tolist()) for order in shuffled}) == 3


# ---- retrieval --------------------------------------------------------------------


def test_a_ranking_worked_out_by_hand():
    relevant = torch.tensor([[True, False, True, False], [False, False, False, True], [False] * 4])
    assert retrieval.mean_average_precision(relevant) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 4 + 0) / 3)
    assert retrieval.precision_at_k(relevant) == [
        [1, pytest.approx(1 / 3)],
        [2, pytest.approx(1 / 6)],
    ]
    curve = dict(zip(retrieval.RECALL_LEVELS, retrieval.precision_recall(relevant), strict=True))
    assert curve[0.5] == pytest.approx((1 + 1 / 4) / 2) and curve[0.55] == pytest.approx((2 / 3 + 1 / 4) / 2)


def plain_map(queries: list, items: list, query_labels: list, item_labels: list) -> float:
    """One loop in another; equal cosines in the order of the items."""
    total = 0.0
    for query, label in zip(queries, query_labels, strict=True):
        cosines = [
            sum(a * b for a, b in zip(query, item, strict=True)) / math.hypot(*query) / math.hypot(*item)
            for item in items
        ]
        found = precision = 0.0
        for rank, index in enumerate(sorted(range(len(items)), key=lambda i: -cosines[i]), start=1):
            if item_labels[index] == label:
                found += 1
                precision += found / rank
        total += precision / max(found, 1)
    return total / len(queries)


def test_map_against_a_plain_loop_and_scikit_learn():
    (queries, q), (items, i) = rows(30, 5, purpose="queries"), rows(40, 5, purpose="items")
    query_labels = torch.randint(4, (30,), generator=generator(0, "query labels"))
    item_labels = torch.randint(4, (40,), generator=generator(0, "item labels"))
    relevant = retrieval.ranked_relevance(retrieval.cosines(queries, items), query_labels, item_labels)
    found = retrieval.mean_average_precision(relevant)
    assert found == pytest.approx(plain_map(q, i, query_labels.tolist(), item_labels.tolist()))
    cosine = F.normalize(queries) @ F.normalize(items).T
    by_scikit_learn = [
        average_precision_score((item_labels == label).numpy(), row.numpy())
        for label, row in zip(query_labels, cosine, strict=True)
    ]
    assert found == pytest.approx(np.mean(by_scikit_learn))


def test_ranking_is_the_stable_argsort_whatever_the_signs_and_ties():
    draw = generator(0, "ties")
    cosine = torch.randint(-3, 4, (50, 200), generator=draw) / 3
    cosine[0, :100], cosine[0, 100:] = 0.0, -0.0  # the two zeros are one number
    cosine[1] = torch.randn(200, generator=draw) * 1e-38  # numbers too small to be normal
    expected = cosine.argsort(dim=1, descending=True, stable=True)
    assert torch.equal(retrieval.ranking(cosine), expected)
    assert retrieval.ranking(cosine)[0].tolist() == list(range(200))


def test_ties_keep_the_order_of_the_items():
    query, label = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    items = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # the first two at the same cosine
    for labels, precision in (([1, 0, 0], 1.0), ([0, 1, 0], 0.5)):
        relevant = retrieval.ranked_relevance(retrieval.cosines(query, items), label, torch.tensor(labels))
        assert retrieval.mean_average_precision(relevant) == precision


def test_scores_go_both_ways():
    U, V = torch.eye(2)[[0, 0, 1]], torch.eye(2)[[0, 1, 1]]
    result = retrieval.scores(retrieval.both_ways(U, V, torch.arange(3)))
    assert result["map_i2t"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert result["map_t2i"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert result["map_avg"] == pytest.approx((result["map_i2t"] + result["map_t2i"]) / 2)


# ---- the data ---------------------------------------------------------------------


def test_the_stand_in_has_classes_to_find_and_is_always_the_same():
    pairs, again = load(stand_in()), load(stand_in("pascal_sentence"))
    assert [len(part) for part in (pairs.train, pairs.validation, pairs.test)] == [400, 40, 60]
    assert torch.equal(pairs.train.images, again.train.images) and pairs.split_hash() == again.split_hash()
    assert set(pairs.test.labels.tolist()) == set(range(10))


def write_authors_layout(folder, classes=3, train_pairs=30, test_pairs=100, **changed) -> dict[str, str]:
    """The six .mat files of made-up features; `changed` replaces a matrix or leaves it out (None)."""
    folder.mkdir(parents=True, exist_ok=True)
    random_state = np.random.default_rng(0)
    matrices = {}
    for part, count in (("train", train_pairs), ("test", test_pairs)):
        matrices[f"{part}_img"] = random_state.random((count, 12), dtype=np.float32)
        matrices[f"{part}_txt"] = random_state.random((count, 5), dtype=np.float32)
        matrices[f"{part}_img_lab"] = np.arange(count)[:, None] % classes
    for name, matrix in (matrices | changed).items():
        savemat(folder / f"{name}.mat", {"another" if matrix is None else name: 0 if matrix is None else matrix})
    return {f"{name}.mat": "" for name in matrices}


def authors_data(folder, dataset="pascal_sentence", **how) -> LocatedData:
    files = write_authors_layout(folder, **how)
    return LocatedData(dataset, "official", folder, files, vouched=tuple(files))


def test_the_authors_layout_is_read(tmp_path):
    pairs = load(authors_data(tmp_path))
    assert pairs.train.images.shape == (30, 12) and pairs.test.texts.shape == (100, 5) and pairs.classes == 3
    assert pairs.train.labels[:4].tolist() == [0, 1, 2, 0] and pairs.train.images.dtype == torch.float32
    assert len(pairs.validation) == 0
    expected = np.random.default_rng(0).random((30, 12), dtype=np.float32)
    assert np.array_equal(pairs.train.images.numpy(), expected)


def test_pairs_before_the_test_set_in_its_files_are_for_validation(tmp_path):
    pairs = load(authors_data(tmp_path, "wikipedia", test_pairs=693))
    assert (len(pairs.validation), len(pairs.test)) == (231, 462)
    assert pairs.validation.labels[0] == 0 and pairs.test.labels[0] == 231 % 3
    assert pairs.split_hash() != load(authors_data(tmp_path, "wikipedia", test_pairs=692)).split_hash()


def test_files_in_a_folder_of_their_own_are_read_from_there(tmp_path):
    files = write_authors_layout(tmp_path / "own")
    data = LocatedData("pascal_sentence", "own", tmp_path, {f"own/{name}": "" for name in files})
    assert len(load(data).train) == 30


def from_1(count: int) -> np.ndarray:
    return np.arange(count)[:, None] % 3 + 1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"train_img": None}, "has no variable 'train_img', only another"),
        ({"train_img": np.ones((29, 12))}, "29 pictures, 30 texts and 30 labels do not match"),
        ({"test_txt": np.full((100, 5), np.nan)}, "test_txt is not a matrix of finite numbers"),
        ({"train_img": np.array([["a"] * 12] * 30)}, "train_img is not an array of numbers"),
        ({"train_img": np.empty((0, 12))}, "train_img is not a matrix"),
        ({"test_img": np.ones((100, 13))}, "differ in length"),
        (
            {"train_img_lab": np.full((30, 1), -1)},
            "labels count from 0 and leave none out, but these 4 ",
        ),
        ({"train_img_lab": np.full((30, 1), 0.5)}, "must be whole numbers, one in a row, not 0.5 to 0.5 in 1 column"),
        ({"train_img_lab": np.zeros((30, 2))}, "must be whole numbers, one in a row, not 0 to 0 in 2 columns"),
        ({"train_img_lab": np.full((30, 1), 99)}, "but these 4 classes go from 0 to 99"),
        ({"train_img_lab": np.full((30, 1), 1e12)}, "but these 4 classes go from 0 to 1000000000000"),
        ({"train_img_lab": np.full((30, 1), 1e300)}, "must be whole numbers, one in a row, not 1e\\+300 to"),
        ({"train_img_lab": from_1(30), "test_img_lab": from_1(100)}, "but these 3 classes go from 1 to 3"),
        ({"test_pairs": 99}, "99 pairs to test on, but there should be 100"),
    ],
)
def test_features_that_are_not_in_order_are_a_data_error(tmp_path, changed, told):
    with pytest.raises(DataError, match=told) as error:
        load(authors_data(tmp_path, **changed))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no matrices", b"MATLAB 5.0 MAT-file" + bytes(200)])
def test_a_broken_mat_file_is_a_data_error(tmp_path, content):
    data = authors_data(tmp_path)
    (tmp_path / "train_txt.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"train_txt\.mat"):
        load(data)


@pytest.fixture(scope="module")
def wikipedia() -> Pairs:
    data = real_data(find_passport("wikipedia", PAPER.folder))
    if data.edition != "shallow":
        pytest.skip(f"the features of 2010 are not what REPRO_DATA holds, but {data.edition}")
    return load(data)


def test_wikipedia_has_its_counts_and_its_files_are_mixed(wikipedia):
    assert [len(part) for part in (wikipedia.train, wikipedia.validation, wikipedia.test)] == [2173, 231, 462]
    assert (wikipedia.train.images.shape[1], wikipedia.train.texts.shape[1], wikipedia.classes) == (128, 10, 10)
    assert torch.bincount(wikipedia.train.labels).tolist() == [138, 272, 244, 248, 202, 178, 186, 144, 214, 347]

    def classes_in_batches(order):
        labels = wikipedia.train.labels[order_of_epoch(wikipedia.train.labels, 0, 0, Recipe(order=order))]
        return {len(batch.unique()) for batch in labels.split(100)}

    assert classes_in_batches("file") == {10}
    assert classes_in_batches("class") == {1, 2}


def test_the_pascal_files_are_the_authors_and_missing_ones_are_named():
    passport = find_passport("pascal_sentence", PAPER.folder)
    folder = Path(os.environ.get("REPRO_DATA", "."), passport.folder)
    if not (folder / "train_img_lab.mat").exists():
        pytest.skip("needs real data: no train_img_lab.mat in $REPRO_DATA.")
    try:
        data = locate(passport)
    except DataAbsent as absent:
        assert "train_img.mat is missing" in str(absent)
        labels = read_matrix(folder / "train_img_lab.mat", "train_img_lab")[:, 0]
        assert read_matrix(folder / "test_img.mat", "test_img").shape == (100, 4096)
        assert read_matrix(folder / "train_txt.mat", "train_txt").shape == (800, 300)
    else:
        pairs = load(data)
        assert (len(pairs.train), len(pairs.test), pairs.classes) == (800, 100, 20)
        labels = pairs.train.labels.numpy()
    assert all(len(set(labels[i : i + 40])) == 1 for i in range(0, 800, 40)), "class blocks of 40"
    assert {len(set(labels[i : i + 100])) for i in range(0, 800, 100)} == {3}


# ---- runs: train, resume, evaluate -------------------------------------------------


def job(folder, variant="wikipedia-file-order", seed=0, **changes) -> Job:
    data = stand_in(PAPER.variants[variant].dataset)
    smoke = replace(recipe(variant, "smoke"), **changes)
    return Job(PAPER.name, variant, "smoke", seed, smoke, bool(changes), data, "cpu", folder, "test", CODE)


def without_pictures() -> None:
    """t-SNE takes longer than all the rest of a smoke run."""
    train.tsne = lambda *_: []


@pytest.fixture
def no_picture(monkeypatch):
    monkeypatch.setattr(train, "tsne", train.tsne)  # put back in the end
    without_pictures()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where whole runs without pictures lie: each is made once, and whoever asks for it again is given its record."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def pictured(tmp_path_factory) -> Record:
    """The record of a whole run with its pictures."""
    return finished(tmp_path_factory.mktemp("pictured"))


def finished(folder, **how) -> Record:
    return run_job(job(folder, **how))[0]


def cut_after(steps: int, folder, **how) -> None:
    with killed_after(steps):
        run_job(job(folder, **how))


@pytest.mark.parametrize(
    "variant", the_others_slow(VARIANTS, "wikipedia-file-order", "wikipedia-file-order-without-j2-j3")
)
def test_every_variant_trains_resumes_and_evaluates(tmp_path, runs, no_picture, variant):
    whole = finished(runs, variant=variant)
    cut_after(6, tmp_path, variant=variant)  # of twelve: in the middle of the second epoch
    resumed = finished(tmp_path, variant=variant)
    assert resumed.weights.sha256 == whole.weights.sha256
    assert (resumed.metrics, resumed.curves, resumed.details) == (whole.metrics, whole.curves, whole.details)
    assert set(whole.metrics) == {"test-best", "val-best", "last"} <= set(PAPER.protocols)
    assert all(0.1 < value <= 1 for values in whole.metrics.values() for value in values.values())


@pytest.mark.parametrize("steps", [1, 4, 12])
def test_killed_at_any_step_it_ends_with_the_same_bits(tmp_path, runs, no_picture, steps):
    """Four steps are an epoch; the last one of an epoch is over before its scores are taken."""
    cut_after(steps, tmp_path)
    resumed, whole = finished(tmp_path), finished(runs)
    assert (resumed.weights.sha256, resumed.curves) == (whole.weights.sha256, whole.curves)


def test_the_same_seed_gives_the_same_bits_and_another_other_ones(tmp_path, runs, no_picture):
    first, again, other = finished(runs), finished(tmp_path), finished(tmp_path, seed=1)
    assert first.weights.sha256 == again.weights.sha256 != other.weights.sha256


def test_measuring_between_epochs_does_not_disturb(tmp_path, runs, monkeypatch, no_picture):
    measured = finished(runs)
    monkeypatch.setattr(train, "measure", lambda *_: {"test_map_avg": 0.5, "test_map_i2t": 0.5, "test_map_t2i": 0.5})
    blind = finished(tmp_path)
    assert blind.metrics["test-best"]["map_avg"] == 0.5, "nothing was measured"
    assert blind.weights.sha256 == measured.weights.sha256


def one_weight_off(kept: dict) -> None:
    kept["parts"]["model"]["P.bias"][0] += 1e-6


def other_moments(kept: dict) -> None:
    kept["parts"]["optimiser"]["state"][0]["exp_avg"].mul_(1.001)


@pytest.mark.parametrize("mistake", [step_off_by_one, one_weight_off, other_moments])
def test_a_resume_with_a_mistake_would_be_noticed(tmp_path, runs, no_picture, mistake):
    cut_after(6, tmp_path)
    spoil_checkpoint(job(tmp_path).folder, mistake)
    assert finished(tmp_path).weights.sha256 != finished(runs).weights.sha256


def on_two_threads() -> None:
    torch.set_num_threads(2)
    without_pictures()


def on_two_threads_saving_often() -> None:
    on_two_threads()
    helpers.save_often()


def test_killed_for_good_the_same_command_ends_with_the_same_bits(tmp_path):
    def command(folder, prepare=on_two_threads, **how):
        words = ["dscmr", "--variant", "wikipedia-shuffled", "--preset", "smoke", "--runs-dir", folder]
        return helpers.run(*words, log=tmp_path, prepare=prepare, **how)

    assert command(tmp_path / "whole").code == 0
    # Of the writes: run.json, then a checkpoint after each step, the third of which is the fourth.
    cut = command(tmp_path / "cut", on_two_threads_saving_often, fault="replace:4:KILL")
    assert cut.code == -signal.SIGKILL
    again = command(tmp_path / "cut")
    assert again.code == 0 and "resuming seed 0 at 200 samples" in again.err
    assert helpers.bits(tmp_path / "cut") == helpers.bits(tmp_path / "whole")


def test_a_signal_saves_the_step_and_the_same_command_goes_on(tmp_path, runs, monkeypatch, no_picture):
    def stop_at_the_sixth(run: Run) -> None:
        if run.samples == 600:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "watchers", [stop_at_the_sixth])
        with pytest.raises(Interrupted):
            finished(tmp_path)
    assert checkpoint.load(job(tmp_path).folder)["samples"] == 700, "the step that the signal came before is over"
    assert finished(tmp_path).weights.sha256 == finished(runs).weights.sha256


def test_the_epochs_are_chosen_as_the_protocols_say():
    curves = {
        "test_map_avg": [0.3, 0.5, 0.5, 0.4],
        "test_map_i2t": [0.2, 0.41, 0.6, 0.3],
        "test_map_t2i": [0.4, 0.59, 0.4, 0.5],
        "val_map_avg": [0.1, 0.2, 0.3, 0.4],
    }
    chosen = metrics_of_curves(curves, Recipe())
    assert chosen["test-best"] == {"map_i2t": 0.41, "map_t2i": 0.59, "map_avg": 0.5}, "the earliest of equals"
    assert chosen["val-best"] == {"map_i2t": 0.3, "map_t2i": 0.5, "map_avg": 0.4}
    del curves["val_map_avg"]
    assert set(metrics_of_curves(curves, Recipe())) == {"test-best"}, "no validation pairs, no choice by them"


def test_the_record_holds_what_the_figures_need_and_is_small(pictured):
    last = {name: pictured.curves[f"test_{name}"][-1] for name in pictured.metrics["last"]}
    assert last == pytest.approx(pictured.metrics["last"], abs=0.01), "the training's precision there, float64 here"
    assert len(pictured.details["tsne_before"]) == len(pictured.details["tsne_after"]) == 2 * 2 * 60
    assert pictured.details["tsne_before"] != pictured.details["tsne_after"]
    assert len(pictured.details["test_labels"]) == 60
    assert pictured.details["precision_at_k_i2t"][-1][0] == 50
    best = pictured.metrics["test-best"]["map_avg"]
    assert best == max(pictured.curves["test_map_avg"]) >= pictured.metrics["val-best"]["map_avg"]


def of_edition(record: Record, edition: str, **averages: float) -> Record:
    """The record as if of this edition, with these average mAPs by protocol, where any are given."""
    metrics = {name.replace("_", "-"): {"map_avg": value} for name, value in averages.items()} or record.metrics
    data = record.data.model_copy(update={"edition": edition})
    return record.model_copy(update={"data": data, "metrics": metrics})


def test_figures_keep_editions_apart(pictured):
    """Own features in the place of the paper's make another edition, perhaps without validation pairs."""
    shallow, own = of_edition(pictured, "shallow"), of_edition(pictured, "official")
    for draw in (figures.map_against_epochs, figures.precision_curves, figures.common_space):
        assert draw([own], None) is None and draw([own, shallow], None) is not None
    unvalidated = of_edition(pictured, "shallow", test_best=0.5, last=0.4)
    assert figures.map_against_epochs([unvalidated], None) is None


def test_every_edition_has_its_own_gains(pictured):
    shallow = of_edition(pictured, "shallow", test_best=0.5, val_best=0.45, last=0.4)
    own = of_edition(pictured, "official", test_best=0.7, val_best=0.68, last=0.1)
    (axes,) = figures.what_the_choice_gives([shallow, own], None).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["wikipedia-file-order (shallow)", "wikipedia-file-order (official)"]
    assert [text.get_text() for text in axes.texts] == ["+0.050", "+0.020", "+0.100", "+0.600"]


def test_figures_are_drawn_only_from_records_that_they_need(pictured):
    from common.pages.figures import _drawn

    def nothing(dataset):
        return None

    record = of_edition(pictured, "shallow")
    for draw in figures.FIGURES.values():
        assert _drawn(partial(draw, [], nothing)) is None
        first = _drawn(partial(draw, [record], nothing))
        assert first[:4] == b"\x89PNG" and _drawn(partial(draw, [record], nothing)) == first


def test_it_learns_the_stand_in(tmp_path, no_picture):
    for norms in ("frobenius", "sample"):
        curves = finished(tmp_path, norms=norms, epochs=20).curves
        assert curves["test_map_avg"][-1] > 0.7 > 0.4 > curves["test_map_avg"][0]
        assert curves["loss"][-1] < curves["loss"][0] / 2


@pytest.mark.parametrize("norms", ["frobenius", "sample"])
def test_training_is_adam_on_the_sum_of_the_losses(tmp_path, no_picture, norms):
    """Written again with autograd, float32, and with J2 and J3 weighted so that each would be missed."""
    recorded = finished(tmp_path, norms=norms, lam=2.0, eta=0.5, precision="float32").curves["loss"]
    pairs = load(stand_in())
    model, part = train.initial_model(pairs, 0), pairs.train
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.5, 0.999))
    for loss_of_epoch in recorded:
        total = 0.0
        for batch in torch.arange(len(part)).split(100):
            U, V = model(part.images[batch], part.texts[batch])
            Y = F.one_hot(part.labels[batch], pairs.classes).float()
            loss = J1(model, U, V, Y, norms) + 2.0 * J2(U, V, Y) + 0.5 * J3(U, V, norms)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        assert loss_of_epoch == pytest.approx(total / len(part), rel=1e-4)


def test_bfloat16_changes_little(tmp_path, monkeypatch, no_picture):
    monkeypatch.setattr("common.training.run.fast_precision", lambda device: torch.bfloat16)
    for size in ("HIDDEN", "COMMON"):  # many times slower on processors that are not made for it
        monkeypatch.setattr(f"papers.dscmr.model.{size}", 256)
    halves, whole = (finished(tmp_path / name, precision=name) for name in ("fast", "float32"))
    assert halves.environment.precision == "bfloat16" and whole.environment.precision == "float32"
    assert halves.weights.sha256 != whole.weights.sha256
    for name in ("loss", "test_map_avg"):
        assert halves.curves[name] == pytest.approx(whole.curves[name], abs=0.02)


def test_weights_in_float16_retrieve_as_their_record_says(tmp_path, runs, monkeypatch, no_picture):
    work, record = job(runs), finished(runs)
    model, published = load_in_float16(PAPER, work, record, tmp_path, monkeypatch)
    pairs = load(work.data)
    with torch.no_grad():
        U, V = model.double()(pairs.test.images.double(), pairs.test.texts.double())
    measured = published.metrics_of_file["last"]
    assert retrieval.scores(retrieval.both_ways(U, V, pairs.test.labels)) == measured
    assert measured["map_avg"] == pytest.approx(record.metrics["last"]["map_avg"], abs=0.01)
    sizes = [file.stat().st_size for file in (work.folder / record.weights.file, tmp_path / published.weights.file)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.01)


def test_weights_of_another_model_are_refused():
    weights = DSCMR(3, 3, 3).state_dict()
    with pytest.raises(UsageError, match="weights of another model"):
        evaluate(weights, Recipe(), stand_in(), "cpu")
