"""ResNet on CIFAR-10: its recipe is the paper's, its loop a plain one, its runs resume exactly; on a small stand-in."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt

from common.base.errors import NumbersError, UsageError
from common.claims.papers import load_paper
from common.data.cifar10 import Cifar10, hold_out
from common.training import provenance, steps
from common.training.determinism import generator
from common.training.records import Record
from common.training.run import Job, run_job
from common.training.weights import copied, load_weights, weights_hash
from papers.resnet import figures, imagenet, train
from papers.resnet.data import PADDING, mean_picture, random_crops, subtract_mean
from papers.resnet.eval import evaluate, layer_responses, predictor
from papers.resnet.model import initialise
from papers.resnet.train import VARIANTS, build_model, learning_rate, recipe
from tests.contract import helpers
from tests.papers.cifar import STAND_IN, some_of_each_class
from tests.papers.mistakes import other_velocity, spoil_checkpoint, step_off_by_one

PAPER = load_paper("resnet")
CODE = provenance.code(PAPER.name)
PER_CLASS, BATCH, PER_EPOCH, ITERATIONS = 7, 16, 5, 8  # 70 pictures: four batches of 16 and one of 6


@pytest.fixture(scope="module")
def few() -> Cifar10:
    return some_of_each_class(PER_CLASS)


@pytest.fixture(scope="module", autouse=True)
def small_standin(few):
    with pytest.MonkeyPatch.context() as patch:
        for module in ("train", "eval"):
            patch.setattr(f"papers.resnet.{module}.load", lambda located: few)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the whole runs lie: each is made once, and whoever asks for it again is given its record."""
    return tmp_path_factory.mktemp("runs")


def job(folder, variant="resnet20", seed=0, **changes) -> Job:
    short = replace(recipe(variant, "smoke"), **{"batch_size": BATCH, "precision": "float32"} | changes)
    return Job(PAPER.name, variant, "smoke", seed, short, True, STAND_IN, "cpu", folder, "test", CODE)


def finished(folder, **how) -> Record:
    return run_job(job(folder, **how))[0]


def cut_after(iterations: int, folder, **how) -> None:
    with helpers.killed_after(iterations):
        run_job(job(folder, **how))


# ---- the recipe -----------------------------------------------------------------------------------


def test_the_rate_of_every_iteration_is_the_papers():
    """Sec. 4.2: 'a learning rate of 0.1, divide it by 10 at 32k and 48k iterations, and terminate at 64k'."""
    full = VARIANTS["resnet20"]
    rates = [learning_rate(full, iteration) for iteration in range(full.iterations)]
    assert rates == [0.1] * 32_000 + [0.01] * 16_000 + [0.1 / 100] * 16_000


def test_a_schedule_eight_times_shorter_falls_at_the_same_shares():
    short = VARIANTS["plain56-8k"]
    rates = [learning_rate(short, iteration) for iteration in range(short.iterations)]
    assert rates == [0.1] * 4000 + [0.01] * 2000 + [0.1 / 100] * 2000


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_the_constants_of_section_4_2(variant):
    full, name = VARIANTS[variant], variant.removesuffix("-8k")
    depth = int(name.removeprefix("resnet").removeprefix("plain"))
    assert (full.depth, full.shortcuts) == (depth, "none" if name.startswith("plain") else "A")
    assert (full.batch_size, full.momentum, full.weight_decay, full.held_out) == (128, 0.9, 0.0001, 0)
    assert (full.warmup_rate, full.warmup_error) == (0.01 if depth > 100 else None, 80)
    assert full.iterations == (8000 if variant.endswith("-8k") else 64_000)


def test_the_variants_are_those_of_paper_yaml():
    assert set(VARIANTS) | set(imagenet.VARIANTS) == set(PAPER.variants)


@pytest.mark.parametrize("variant", VARIANTS)
def test_shorter_presets_keep_the_schedules_shape(variant):
    full = VARIANTS[variant]
    assert recipe(variant, "full") == full
    for preset, standin in (("quick", False), ("smoke", True), ("full", True), ("quick", True)):
        short = recipe(variant, preset, standin)
        assert 1 <= short.iterations <= full.iterations // 5 and not short.compiled
        assert [learning_rate(short, 0), learning_rate(short, short.iterations)] == [0.1, 0.1 / 100]
        same = {"iterations": 1, "milestones": (), "compiled": False, "depth": 8 if preset == "smoke" else full.depth}
        if preset != "smoke":  # all of their rates are those of the schedule
            assert short.warmup_rate is None
            same["warmup_rate"] = None
        assert replace(short, **same) == replace(full, **same)
    assert recipe(variant, "quick").iterations == 1600 * 20 // full.depth  # whatever the variant's own number is
    assert recipe(variant, "full", standin=True).iterations * full.depth <= 4000  # so that two minutes do


def test_resnet_110_is_compared_with_the_mean_and_not_the_best():
    (claim,) = [claim for claim in PAPER.claims if claim.variant == "resnet110"]
    assert (claim.value, claim.spread.sd, claim.spread.runs, claim.tolerance) == (6.61, 0.16, 5, 0.32)


# ---- the loop -------------------------------------------------------------------------------------


def plain_loop(few: Cifar10, iterations: int, seed: int, learns) -> dict[str, torch.Tensor]:
    """The paper's training as one would write it down, picture by picture; the draws are the project's."""
    images, labels = few.train_images, few.train_labels
    mean = images.float().mean(0)
    model = build_model(job("").recipe)
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
                padded = F.pad(images[number].float() - mean, [PADDING] * 4)
                picture = padded[:, top : top + 32, left : left + 32]
                pictures.append(picture.flip(2) if mirrored else picture)
            logits = model(torch.stack(pictures).contiguous(memory_format=torch.channels_last))
            optimiser.zero_grad()
            F.cross_entropy(logits, labels[batch]).backward()
            optimiser.step()
            taken += 1
    raise AssertionError


@pytest.mark.parametrize("iterations", [5, 7])
def test_the_loop_is_a_plain_one_bit_for_bit(tmp_path, few, iterations):
    """Five iterations are an epoch, whose last batch is a short one."""

    def learns(model):
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0001, fused=True)

    ours = finished(tmp_path, iterations=iterations, milestones=(50, 60), seed=3)
    assert ours.weights.sha256 == weights_hash(plain_loop(few, iterations, 3, learns))


def test_the_update_is_momentum_and_decay_of_every_parameter(tmp_path, few):
    """v = 0.9 v + (g + 0.0001 w), w = w - 0.1 v, up to rounding."""

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
    for name, theirs in plain_loop(few, 3, 0, ByHand).items():
        torch.testing.assert_close(ours[name], theirs, rtol=1e-3, atol=1e-4, msg=name)


def test_every_epoch_shows_every_picture_once_in_an_order_of_its_own(tmp_path, few, monkeypatch):
    honest, shown = train.augment, []

    def augment(images, mean, crops):
        shown.append(images)
        return honest(images, mean, crops)

    monkeypatch.setattr(train, "augment", augment)
    finished(tmp_path, iterations=2 * PER_EPOCH)
    assert [len(batch) for batch in shown] == [16, 16, 16, 16, 6] * 2
    first, second = torch.cat(shown[:PER_EPOCH]), torch.cat(shown[PER_EPOCH:])
    assert not torch.equal(first, second)
    for epoch in (first, second):
        assert torch.equal(epoch.flatten(1).float().sort(0).values, few.train_images.flatten(1).float().sort(0).values)


def test_the_loop_stops_at_its_last_iteration_exactly(tmp_path, updates):
    record = finished(tmp_path)
    assert (record.recipe["iterations"], record.recipe["milestones"]) == (ITERATIONS, [4, 6])
    assert [update["lr"] for update in updates] == [0.1] * 4 + [0.01] * 2 + [0.1 / 100] * 2
    assert record.curves["iteration"] == [PER_EPOCH, ITERATIONS]
    assert all(len(values) == 2 for values in record.curves.values())


@pytest.mark.parametrize("threshold, epochs", [(0, 3), (100, 1)])
def test_the_warm_up_lasts_whole_epochs_until_the_error_is_below(tmp_path, updates, threshold, epochs):
    """An error is never below 0, and always below 100 here."""
    schedule = {"iterations": 13, "milestones": (11, 12)}
    record = finished(tmp_path, variant="resnet110", warmup_error=threshold, **schedule)
    warm = min(epochs * PER_EPOCH, 13)
    assert [update["lr"] for update in updates] == [0.01] * warm + ([0.1] * 11 + [0.01, 0.1 / 100])[warm:]
    assert record.curves["train_error"][0] < 100


def test_a_run_cut_in_the_warm_up_or_after_it_keeps_its_rates(tmp_path, updates):
    for iterations in (3, 7):
        cut_after(iterations, tmp_path / str(iterations), variant="resnet110", warmup_error=100)
        finished(tmp_path / str(iterations), variant="resnet110", warmup_error=100)
    assert [update["lr"] for update in updates] == 2 * ([0.01] * 5 + [0.01] + [0.1 / 100] * 2)


def test_the_curves_are_means_over_the_pictures_as_they_come(tmp_path, monkeypatch):
    honest, seen = train.loss_and_mistakes, []

    def watched(model, precision):
        step = honest(model, precision)

        def watching(batch, labels):
            loss, mistakes = step(batch, labels)
            seen.append((loss.item() * len(batch), mistakes.item(), len(batch)))
            return loss, mistakes

        return watching

    monkeypatch.setattr(train, "loss_and_mistakes", watched)
    curves = finished(tmp_path).curves
    for epoch, part in enumerate((seen[:PER_EPOCH], seen[PER_EPOCH:])):
        losses, mistakes, pictures = (sum(column) for column in zip(*part, strict=True))
        assert curves["loss"][epoch] == pytest.approx(losses / pictures, rel=1e-6)
        assert curves["train_error"][epoch] == 100 * mistakes / pictures


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    with pytest.raises(NumbersError, match="the loss in epoch 1 is"):
        finished(tmp_path, learning_rate=1e30)


# ---- held out -------------------------------------------------------------------------------------


def test_held_out_pictures_are_the_last_and_take_the_test_sets_place(few):
    held = hold_out(few, 20)
    assert torch.equal(held.train_images, few.train_images[:-20]) and len(held.train_labels) == 50
    assert torch.equal(held.test_images, few.train_images[-20:])
    assert torch.equal(held.test_labels, few.train_labels[-20:])
    assert hold_out(few, 0) is few and hold_out(few, 69).train_labels.tolist() == few.train_labels[:1].tolist()
    with pytest.raises(UsageError, match="--held-out 70: there are 70 to train on"):
        hold_out(few, 70)


def test_a_run_that_holds_out_neither_trains_on_them_nor_tests_on_others(tmp_path, few, monkeypatch):
    honest, means = train.mean_picture, []
    monkeypatch.setattr(train, "mean_picture", lambda images: means.append(images) or honest(images))
    record = finished(tmp_path, held_out=20)
    assert torch.equal(means[0], few.train_images[:-20])
    assert "held_out_error" in record.curves and "test_error" not in record.curves
    assert sum(map(sum, record.details["confusion_matrix"])) == 20
    assert record.data.split == hold_out(few, 20).split_hash() != few.split_hash()


# ---- runs -----------------------------------------------------------------------------------------


def each_variant() -> list:
    """At eight layers the others differ from these in nothing."""
    return [
        pytest.param(v, marks=() if v in ("resnet20", "resnet110", "plain20") else pytest.mark.slow) for v in VARIANTS
    ]


@pytest.mark.parametrize("variant", each_variant())
def test_every_variant_trains_resumes_and_evaluates(tmp_path, runs, variant):
    whole = finished(runs, variant=variant)
    cut_after(6, tmp_path, variant=variant)
    resumed = finished(tmp_path, variant=variant)
    assert resumed.weights.sha256 == whole.weights.sha256
    assert (resumed.metrics, resumed.curves, resumed.details) == (whole.metrics, whole.curves, whole.details)
    assert set(whole.metrics) == {"last"} and set(whole.metrics["last"]) == {"test_error", "train_error"}
    assert len(whole.details["layer_responses"]) == 7  # the 3x3 layers of eight


@pytest.mark.parametrize("iterations", [1, 4, 5, 7, 8])
def test_killed_at_any_iteration_it_ends_with_the_same_bits(tmp_path, runs, iterations):
    cut_after(iterations, tmp_path, precision="fast")
    assert finished(tmp_path, precision="fast").weights.sha256 == finished(runs, precision="fast").weights.sha256


def test_bits_follow_from_the_seed_and_not_from_global_draws_or_tests(tmp_path, runs, monkeypatch):
    whole = finished(runs)
    assert finished(runs, seed=1).weights.sha256 != whole.weights.sha256
    monkeypatch.setattr(train, "classify", lambda model, images, *_: torch.rand(len(images)) > 2)
    assert finished(tmp_path).weights.sha256 == whole.weights.sha256


def other_moments(kept: dict) -> None:
    kept["parts"]["model"]["conv1.1.running_mean"].add_(1e-3)


@pytest.mark.parametrize("mistake", [step_off_by_one, other_moments, other_velocity])
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
        evaluate(weights, replace(work.recipe, depth=14), STAND_IN, "cpu")
    logits = predictor(weights, work.recipe, lambda: STAND_IN).eval()(few.test_images)
    assert (logits.argmax(1) == few.test_labels).sum() == matrix.trace()


def test_layer_responses_are_deviations_before_the_relu_and_the_addition(few, monkeypatch):
    monkeypatch.setattr("papers.resnet.eval.IMAGES_AT_ONCE", 32)  # parts of 32, 32 and 6
    model = build_model(job("").recipe)
    initialise(model, generator(0, "initial weights"))
    mean = mean_picture(few.train_images)
    measured = layer_responses(model, few.test_images, mean)
    with torch.no_grad():
        model.eval()
        x = subtract_mean(few.test_images, mean)
        first, relu = model.conv1[:2](x), model.conv1[2]
        block = model.maps32[0]
        second = block.residual[:2](relu(first.clone()))
        third = block.residual(relu(first.clone()))
    expected = [layer.double().std(correction=0).item() for layer in (first, second, third)]
    assert measured[:3] == pytest.approx(expected, rel=1e-4)


# ---- the compiled step ----------------------------------------------------------------------------


@pytest.mark.usefixtures("direct_convolutions")
def test_without_a_compiler_the_step_runs_as_it_is_written(tmp_path, runs, monkeypatch, capsys):
    def no_compiler(step, **_):
        def fail(*batch):
            step(*batch)  # the moments of batch normalization move, and must be put back
            raise RuntimeError("\nNo working C++ compiler found\nand more")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    record = finished(tmp_path, compiled=True)
    assert record.environment.compiled is None
    assert record.weights.sha256 == finished(runs).weights.sha256
    said = capsys.readouterr().err
    assert (
        "torch.compile cannot be used (No working C++ compiler found): the training step runs as it is written" in said
    )


@pytest.mark.usefixtures("direct_convolutions")
def test_each_shape_of_a_batch_is_compiled_before_the_first_iteration(tmp_path, runs, monkeypatch):
    sizes, how = [], []

    def compiler(step, **options):
        how.append(options)
        return lambda batch, labels: sizes.append(len(batch)) or step(batch, labels)

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(steps, "_compiler", lambda: "c++ 1.0")
    cut_after(6, tmp_path, compiled=True)
    record = finished(tmp_path, compiled=True)
    assert sizes == [6, 16, 16, 16, 16, 16, 6, 16] + [6, 16, 16, 16]
    assert how == 2 * [{"fullgraph": True, "dynamic": False, "options": {"inplace_buffers": False}}]
    assert record.environment.compiled == "training step by torch.compile and c++ 1.0"
    assert record.weights.sha256 == finished(runs).weights.sha256


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fast", "float32"])
def test_the_compiled_step_has_the_same_bits_from_run_to_run(tmp_path, runs, monkeypatch, precision):
    """Compiled anew, from the cache, and after a resume that meets the two shapes in another order."""
    how = {"compiled": True, "precision": precision}
    for part in ("first", "second"):
        with monkeypatch.context() as patch:
            patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache" / part))
            finished(tmp_path / part, **how)
    first, second = (finished(tmp_path / part, **how) for part in ("first", "second"))
    assert first.environment.compiled
    cut_after(4, tmp_path / "cut", **how)  # the next batch is the short one
    resumed = finished(tmp_path / "cut", **how)
    assert first.weights.sha256 == second.weights.sha256 == resumed.weights.sha256
    assert first.metrics == second.metrics == resumed.metrics
    eager = finished(tmp_path, precision=precision)
    assert first.curves["loss"] == pytest.approx(eager.curves["loss"], rel=0.02)


@pytest.mark.slow
def test_where_no_compiler_works_the_command_says_so_and_trains(tmp_path):
    words = helpers.smoke(tmp_path / "runs", "--compiled", "true", paper="resnet")
    caches = {"CXX": "no-such-compiler", "CC": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    ended = helpers.run(*words, log=tmp_path / "log", env=caches)
    assert ended.code == 0 and "the training step runs as it is written" in ended.err and "Traceback" not in ended.err
    assert helpers.record(tmp_path / "runs")["environment"]["compiled"] is None


# ---- figures --------------------------------------------------------------------------------------


def test_figures_are_drawn_from_plain_and_residual_records(runs):
    records = [finished(runs), finished(runs, seed=1), finished(runs, variant="plain20")]
    shown = {name: draw(records, lambda dataset: None) for name, draw in figures.FIGURES.items()}
    plain, residual = shown["error_against_iterations"].axes
    assert [len(axis.lines) for axis in (plain, residual)] == [2, 4]
    assert [text.get_text() for text in residual.get_legend().get_texts()] == ["resnet-8"]
    ends = [line.get_ydata()[-1] for axis in (plain, residual) for line in axis.lines]
    assert max(ends) > 40 and residual.get_ylim() == (0, pytest.approx(1.1 * max(ends)))
    (residual_alone,) = figures.error_against_iterations(records[:1], lambda dataset: None).axes
    assert "end\n" in residual_alone.get_title() and len(residual_alone.lines) == 2
    in_order, by_size = shown["layer_responses"].axes
    assert [len(axis.lines) for axis in (in_order, by_size)] == [2, 2]
    heights = by_size.lines[0].get_ydata()
    assert len(heights) == 7 and all(heights[:-1] >= heights[1:])
    data = records[0].data.model_copy(update={"dataset": "imagenet"})
    elsewhere = records[0].model_copy(update={"data": data, "curves": {"top1_error": [80.0]}, "details": {}})
    for none in ([], [elsewhere]):
        assert [draw(none, lambda dataset: None) for draw in figures.FIGURES.values()] == [None, None]
    plt.close("all")
