"""SENet on CIFAR-10: its recipes are the papers', its loop is a plain one, its runs resume exactly; on a stand-in."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt

from common.base.errors import NumbersError, UsageError
from common.claims.papers import load_paper
from common.data.cifar10 import Cifar10, hold_out
from common.training import provenance
from common.training.determinism import generator
from common.training.processes import Processes
from common.training.records import Record
from common.training.run import Job, run_job
from common.training.weights import copied, load_weights, weights_hash
from papers.resnet import train as resnet
from papers.senet import figures, imagenet, train
from papers.senet.data import PADDING, of_each_channel, of_each_pixel, random_crops
from papers.senet.eval import evaluate, gates_by_class, predictor
from papers.senet.model import initialise
from papers.senet.train import VARIANTS, build_model, learning_rate, recipe
from tests.contract import helpers
from tests.papers.cifar import STAND_IN, some_of_each_class
from tests.papers.mistakes import other_velocity, spoil_checkpoint
from tests.papers.variants import the_others_slow

PAPER = load_paper("senet")
CODE = {name: provenance.code(name) for name in ("senet", "resnet")}
PER_CLASS, BATCH, PER_EPOCH, ITERATIONS = 7, 16, 5, 8  # 70 pictures: four batches of 16 and one of 6
DEEP = [name for name in VARIANTS if "preact" in name]
PAIRS = [("resnet20", "se-resnet20"), *((f"preact-resnet{d}", f"se-preact-resnet{d}") for d in (110, 164))]


@pytest.fixture(scope="module")
def few() -> Cifar10:
    return some_of_each_class(PER_CLASS)


@pytest.fixture(scope="module", autouse=True)
def small_standin(few):
    with pytest.MonkeyPatch.context() as patch:
        for module in ("senet.train", "senet.eval", "resnet.train", "resnet.eval"):
            patch.setattr(f"papers.{module}.load", lambda located: few)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the whole runs lie: each is made once, and whoever asks for it again is given its record."""
    return tmp_path_factory.mktemp("runs")


def job(folder, variant="se-resnet20", seed=0, paper="senet", **changes) -> Job:
    of = {"senet": recipe, "resnet": resnet.recipe}[paper]
    short = replace(of(variant, "smoke"), **{"batch_size": BATCH, "precision": "float32"} | changes)
    return Job(paper, variant, "smoke", seed, short, True, STAND_IN, "cpu", folder, "test", CODE[paper])


def finished(folder, **how) -> Record:
    return run_job(job(folder, **how))[0]


def cut_after(iterations: int, folder, **how) -> None:
    with helpers.killed_after(iterations):
        run_job(job(folder, **how))


# ---- the recipes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["resnet20", "se-resnet20"])
def test_the_rate_of_every_iteration_of_20_layers_is_the_resnet_papers(variant):
    """Sec. 4.2 there: 'a learning rate of 0.1, divide it by 10 at 32k and 48k iterations, and terminate at 64k'."""
    full = VARIANTS[variant]
    rates = [learning_rate(full, iteration) for iteration in range(full.iterations)]
    assert rates == [0.1] * 32_000 + [0.01] * 16_000 + [0.1 / 100] * 16_000


@pytest.mark.parametrize("variant", DEEP)
def test_the_rate_of_every_iteration_with_pre_activation_is_that_of_14(variant):
    """[14], Appendix: the same, but 0.01 for the first 400 iterations."""
    full = VARIANTS[variant]
    rates = [learning_rate(full, iteration) for iteration in range(full.iterations)]
    assert rates == [0.01] * 400 + [0.1] * 31_600 + [0.01] * 16_000 + [0.1 / 100] * 16_000


def test_20_layers_without_blocks_have_the_recipe_of_the_resnet_paper():
    ours, theirs = (asdict(of.VARIANTS["resnet20"]) for of in (train, resnet))
    shared = ours.keys() & theirs.keys() - {"warmup_rate"}
    assert shared == theirs.keys() - {"shortcuts", "warmup_rate", "warmup_error"}
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
    assert (ours["standardisation"], ours["warmup_iterations"], theirs["warmup_rate"]) == ("pixel-mean", 0, None)


@pytest.mark.parametrize("variant", DEEP)
def test_pre_activation_variants_have_the_constants_of_14(variant):
    full = VARIANTS[variant]
    assert (full.batch_size, full.momentum, full.weight_decay, full.held_out) == (128, 0.9, 0.0001, 0)
    assert full.standardisation == "channel-mean-std"  # Sec. 5.1
    assert variant.endswith(f"{full.depth}") and full.network.endswith("bottleneck") == (full.depth == 164)


@pytest.mark.parametrize(("plain", "with_blocks"), PAIRS)
def test_a_pair_differs_in_its_blocks_alone(plain, with_blocks):
    assert VARIANTS[with_blocks].reduction == 16
    assert VARIANTS[plain] == replace(VARIANTS[with_blocks], reduction=None)


def test_the_variants_are_those_of_the_claims():
    assert {name: recipe(name, "full") for name in PAPER.variants} == VARIANTS | imagenet.VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_shorter_presets_keep_the_schedules_shape(variant):
    full = VARIANTS[variant]
    assert recipe(variant, "full") == full
    for preset, standin in (("quick", False), ("smoke", True), ("full", True), ("quick", True)):
        short = recipe(variant, preset, standin)
        assert 1 <= short.iterations <= full.iterations // 40 and not short.compiled
        first, last = (learning_rate(short, iteration) for iteration in (0, short.iterations))
        assert (first, last) == (0.01 if full.warmup_iterations else 0.1, 0.1 / 100)
        assert learning_rate(short, short.warmup_iterations) == 0.1
        same = {"iterations": 1, "milestones": (), "warmup_iterations": 0, "compiled": False}
        same |= {"depth": train.SMALLEST[full.network] if preset == "smoke" else full.depth}
        assert replace(short, **same) == replace(full, **same)
    assert recipe(variant, "full", standin=True).iterations * full.depth <= 4000  # so that two minutes do


# ---- the loop -------------------------------------------------------------------------------------


def test_20_steps_of_the_plain_network_are_the_resnet_papers_bit_for_bit(tmp_path):
    how = {"variant": "resnet20", "depth": 20, "batch_size": 8, "iterations": 20, "milestones": (15, 18), "seed": 1}
    ours, theirs = (finished(tmp_path, paper=paper, **how) for paper in ("senet", "resnet"))
    assert ours.weights.sha256 == theirs.weights.sha256
    assert (ours.curves, ours.metrics) == (theirs.curves, theirs.metrics)
    assert ours.data == theirs.data


def plain_loop(few: Cifar10, iterations: int, seed: int, variant: str, learns) -> dict[str, torch.Tensor]:
    """The training as one would write it down, picture by picture; the draws are the project's."""
    images, labels = few.train_images, few.train_labels
    of = job("", variant).recipe
    if of.standardisation == "pixel-mean":
        images = images - of_each_pixel(images).mean
    else:
        standard = of_each_channel(images)
        images = (images - standard.mean) / standard.deviation
    model = build_model(of)
    initialise(model, generator(seed, "initial weights"))
    optimiser = learns(model)
    taken = 0
    for epoch in range(100):
        order = torch.randperm(len(images), generator=generator(seed, "order", epoch)).tolist()
        for index in range(-(-len(images) // BATCH)):
            if taken == iterations:
                return copied(model)
            batch = order[index * BATCH : (index + 1) * BATCH]
            crops, pictures = random_crops(len(batch), seed, epoch, index), []
            for number, top, left, mirrored in zip(batch, crops.top, crops.left, crops.mirrored, strict=True):
                padded = F.pad(images[number], [PADDING] * 4)
                picture = padded[:, top : top + 32, left : left + 32]
                pictures.append(picture.flip(2) if mirrored else picture)
            logits = model(torch.stack(pictures).contiguous(memory_format=torch.channels_last))
            optimiser.zero_grad()
            F.cross_entropy(logits, labels[batch]).backward()
            optimiser.step()
            taken += 1
    raise AssertionError


@pytest.mark.parametrize("variant", ["se-resnet20", "se-preact-resnet164"])
def test_the_loop_is_a_plain_one_bit_for_bit(tmp_path, few, variant):
    """Five iterations are an epoch, whose last batch is a short one."""

    def learns(model):
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0001, fused=True)

    constant = {"iterations": 7, "milestones": (50, 60), "warmup_iterations": 0}
    ours = finished(tmp_path, variant=variant, seed=3, **constant)
    assert ours.weights.sha256 == weights_hash(plain_loop(few, 7, 3, variant, learns))


def test_the_update_is_momentum_and_decay_of_every_parameter(tmp_path, few):
    """v = 0.9 v + (g + 0.0001 w), w = w - 0.1 v, up to rounding; in the blocks too."""

    class ByHand:
        def __init__(self, model):
            self.parameters = list(model.parameters())
            self.velocity = [torch.zeros_like(w) for w in self.parameters]

        def zero_grad(self):
            for w in self.parameters:
                w.grad = None

        @torch.no_grad()
        def step(self):
            for w, v in zip(self.parameters, self.velocity, strict=True):
                v.mul_(0.9).add_(w.grad + 0.0001 * w)
                w.sub_(0.1 * v)

    work = job(tmp_path, iterations=3, milestones=(50, 60))
    ours = load_weights(work.folder / run_job(work)[0].weights.file)
    for name, theirs in plain_loop(few, 3, 0, work.variant, ByHand).items():
        torch.testing.assert_close(ours[name], theirs, rtol=1e-3, atol=1e-4, msg=name)


def test_every_update_has_its_rate_and_the_last_iteration_is_the_last(tmp_path, updates):
    record = finished(tmp_path, variant="se-preact-resnet110")
    assert (record.recipe["iterations"], record.recipe["milestones"]) == (ITERATIONS, [4, 6])
    assert [update["lr"] for update in updates] == [0.01] + [0.1] * 3 + [0.01] * 2 + [0.1 / 100] * 2
    assert record.curves["iteration"] == [PER_EPOCH, ITERATIONS]
    assert all(len(values) == 2 for values in record.curves.values())


def test_every_epoch_shows_every_picture_once_in_an_order_of_its_own(tmp_path, few, monkeypatch):
    honest, shown = train.augment, []

    def augment(images, standard, crops):
        shown.append(images)
        return honest(images, standard, crops)

    monkeypatch.setattr(train, "augment", augment)
    finished(tmp_path, iterations=2 * PER_EPOCH)
    assert [len(batch) for batch in shown] == [16, 16, 16, 16, 6] * 2
    first, second = torch.cat(shown[:PER_EPOCH]), torch.cat(shown[PER_EPOCH:])
    assert not torch.equal(first, second)
    for epoch in (first, second):
        assert torch.equal(epoch.flatten(1).float().sort(0).values, few.train_images.flatten(1).float().sort(0).values)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    with pytest.raises(NumbersError, match="the loss in epoch 1 is"):
        finished(tmp_path, learning_rate=1e30)


def test_cifar_is_not_shared_out_among_processes():
    with pytest.raises(UsageError, match="--nproc 2: on CIFAR-10 senet trains on one device"):
        train.train(SimpleNamespace(processes=Processes(0, 0, 2)), recipe("se-resnet20", "smoke"))


def test_a_reduction_that_does_not_divide_the_maps_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--reduction 3: must divide 16"):
        finished(tmp_path, reduction=3)


def test_held_out_pictures_are_the_last_and_neither_train_nor_standardise(tmp_path, few, monkeypatch):
    seen = []
    monkeypatch.setitem(train.STANDARDS, "pixel-mean", lambda images: seen.append(images) or of_each_pixel(images))
    record = finished(tmp_path, held_out=20)
    assert len(seen) == 2 and all(torch.equal(images, few.train_images[:-20]) for images in seen)
    assert "held_out_error" in record.curves and "test_error" not in record.curves
    assert sum(map(sum, record.details["confusion_matrix"])) == 20
    assert record.data.split == hold_out(few, 20).split_hash() != few.split_hash()
    with pytest.raises(UsageError, match="--held-out 70: there are 70 to train on"):
        hold_out(few, 70)


# ---- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", the_others_slow(VARIANTS, "se-resnet20", "se-preact-resnet164"))
def test_every_variant_trains_resumes_and_evaluates(tmp_path, runs, variant):
    whole = finished(runs, variant=variant)
    cut_after(6, tmp_path, variant=variant)
    resumed = finished(tmp_path, variant=variant)
    assert resumed.weights.sha256 == whole.weights.sha256
    assert (resumed.metrics, resumed.curves, resumed.details) == (whole.metrics, whole.curves, whole.details)
    assert set(whole.metrics) == {"last"} and set(whole.metrics["last"]) == {"test_error", "train_error"}
    assert len(whole.details["gates"]) == (3 if variant.startswith("se-") else 0)  # the branches of the smallest one


@pytest.mark.parametrize("iterations", [1, 4, 5, 7, 8])
def test_killed_at_any_iteration_it_ends_with_the_same_bits(tmp_path, runs, iterations):
    cut_after(iterations, tmp_path, precision="fast")
    assert finished(tmp_path, precision="fast").weights.sha256 == finished(runs, precision="fast").weights.sha256


def test_bits_follow_from_the_seed_and_not_from_global_draws_or_tests(tmp_path, runs, monkeypatch):
    whole = finished(runs)
    assert finished(runs, seed=1).weights.sha256 != whole.weights.sha256
    monkeypatch.setattr(train, "classify", lambda model, images, *_: torch.rand(len(images)) > 2)
    assert finished(tmp_path).weights.sha256 == whole.weights.sha256


def other_gates(kept: dict) -> None:
    kept["parts"]["model"]["maps8.0.excitation.w1.weight"].mul_(1.001)


@pytest.mark.parametrize("mistake", [other_gates, other_velocity])
def test_a_resume_with_a_mistake_would_be_noticed(tmp_path, runs, mistake):
    cut_after(2, tmp_path)
    spoil_checkpoint(job(tmp_path).folder, mistake)
    assert finished(tmp_path).weights.sha256 != finished(runs).weights.sha256


# ---- evaluation -----------------------------------------------------------------------------------


def test_the_weights_that_a_run_leaves_give_its_numbers_again(runs, few):
    work, record = job(runs), finished(runs)
    weights = load_weights(work.folder / record.weights.file)
    measured = evaluate(weights, work.recipe, STAND_IN, "cpu")
    assert (measured.metrics, measured.details) == (record.metrics, record.details)
    matrix = torch.tensor(measured.details["confusion_matrix"])
    assert matrix.sum(1).tolist() == few.test_labels.bincount(minlength=10).tolist()
    wrong = matrix.sum() - matrix.trace()
    assert measured.metrics["last"]["test_error"] == pytest.approx(100 * wrong.item() / len(few.test_labels))
    with pytest.raises(UsageError, match="weights of another model"):
        evaluate(weights, replace(work.recipe, reduction=None), STAND_IN, "cpu")
    logits = predictor(weights, work.recipe, lambda: STAND_IN).eval()(few.test_images)
    assert (logits.argmax(1) == few.test_labels).sum() == matrix.trace()


def test_gates_are_measured_class_by_class(few, monkeypatch):
    monkeypatch.setattr("papers.senet.eval.IMAGES_AT_ONCE", 32)  # parts of 32, 32 and 6
    model = build_model(job("").recipe)
    initialise(model, generator(0, "initial weights"))
    standard, labels = of_each_pixel(few.train_images), few.test_labels
    first, *_, last = gates_by_class(model, few.test_images, labels, standard)
    with torch.no_grad():
        model.eval()
        x = model.conv1(standard(few.test_images))
        block = model.maps32[0]
        gates = block.excitation.gate(block.residual(x)).double()
    for number in range(10):
        of_class = gates[labels == number]
        torch.testing.assert_close(first.mean[number], of_class.mean(0), rtol=1e-6, atol=0)
        torch.testing.assert_close(first.deviation[number], of_class.std(0, correction=0), rtol=1e-3, atol=1e-6)
    means = torch.stack([gates[labels == number].mean(0) for number in range(10)])
    between = (means - means.mean(0)).square().mean().sqrt().item()
    within = torch.stack([gates[labels == n].var(0, correction=0) for n in range(10)]).mean().sqrt().item()
    assert first.summary() == pytest.approx([means.mean().item(), between, within], rel=1e-3)
    assert last.mean.shape == (10, 64)


# ---- figures --------------------------------------------------------------------------------------


def with_weights(record: Record, file: str | None) -> Record:
    """As if it were published."""
    return record.model_copy(update={"weights": record.weights.model_copy(update={"file": file})})


def on_imagenet(record: Record) -> Record:
    """As if it were of a variant that the figures do not show."""
    data = record.data.model_copy(update={"dataset": "imagenet"})
    curves = {"train_error": [90.0], "top1_error": [80.0]}
    return record.model_copy(update={"variant": "imagenet-se-resnet50", "data": data, "curves": curves, "details": {}})


def test_figures_are_drawn_from_records_with_and_without_blocks(runs, few, monkeypatch):
    monkeypatch.setattr(figures, "load", lambda located: few)
    first, *others = finished(runs), finished(runs, seed=1), finished(runs, variant="resnet20")
    records = [
        with_weights(first, str(job(runs).folder / first.weights.file)),
        *(with_weights(record, None) for record in others),
    ]
    elsewhere = on_imagenet(first)
    assert [draw([elsewhere], lambda dataset: STAND_IN) for draw in figures.FIGURES.values()] == [None] * 4
    shown = {name: draw([elsewhere, *records], lambda dataset: STAND_IN) for name, draw in figures.FIGURES.items()}
    (errors,) = shown["error_against_iterations"].axes
    assert len(errors.lines) == 6
    assert [text.get_text() for text in errors.get_legend().get_texts()] == ["resnet20", "se-resnet20"]
    assert [len(axis.lines) - 2 for axis in shown["gates_by_depth"].axes] == [2, 2, 2]
    of_classes = shown["gates_of_classes"].axes
    assert [len(axis.lines) for axis in of_classes] == [11] * 3  # ten classes and all
    assert [len(axis.lines[0].get_xdata()) for axis in of_classes] == [16, 32, 50]
    assert [len(axis.collections) for axis in shown["gates_within_classes"].axes] == [2] * 3
    assert [draw([], lambda dataset: STAND_IN) for draw in figures.FIGURES.values()] == [None] * 4
    assert figures.gates_of_classes(records, lambda dataset: None) is None
    plt.close("all")
