"""GoogLeNet on flowers: its recipe is what the paper gives of one, its loop a plain one, its runs resume exactly; on a
few pictures of the stand-in."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt

from common.base.errors import NumbersError, UsageError
from common.claims.papers import load_paper
from common.data.flowers import load, split
from common.data.image_folder import LabelledPictures
from common.data.passports import LocatedData
from common.training import provenance
from common.training.determinism import generator
from common.training.records import FailedRecord, Record
from common.training.run import Job, run_job
from common.training.weights import load_weights
from papers.googlenet import choose, figures, imagenet, train
from papers.googlenet.crops import PROTOCOLS, cut_crops
from papers.googlenet.eval import evaluate, predictor
from papers.googlenet.model import GoogLeNet, initialise
from papers.googlenet.sampling import stack, training_batch
from papers.googlenet.train import VARIANTS, gradient_norms, learning_rate, mean_colour, recipe
from tests.contract import helpers
from tests.papers.googlenet import make_narrow
from tests.papers.mistakes import other_velocity, spoil_checkpoint, step_off_by_one
from tests.papers.variants import the_others_slow

PAPER = load_paper("googlenet")
CODE = provenance.code(PAPER.name)
STAND_IN = LocatedData("flowers", "stand-in", None, {})
PER_CLASS, BATCH, PER_EPOCH = 4, 6, 3  # 15 pictures train: batches of 6, 6 and 3


@pytest.fixture(scope="module")
def few() -> LabelledPictures:
    """Some pictures of each class of the stand-in."""
    whole = load(STAND_IN)
    part = torch.cat([(whole.labels == label).nonzero()[:PER_CLASS, 0] for label in range(len(whole.classes))])
    names, pictures = ([values[number] for number in part] for values in (whole.names, whole.pictures))
    return LabelledPictures(tuple(names), tuple(pictures), whole.labels[part], whole.classes)


@pytest.fixture(scope="module", autouse=True)
def small_standin(few):
    with pytest.MonkeyPatch.context() as patch:
        for module in ("train", "eval"):
            patch.setattr(f"papers.googlenet.{module}.load", lambda located: few)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def narrow(monkeypatch):
    make_narrow(monkeypatch.setattr)


@pytest.fixture
def runs(folder, narrow):
    """Where the whole runs lie: each is made once, and whoever asks for it again is given its record."""
    return folder


def job(folder, variant="flowers", seed=0, device="cpu", **changes) -> Job:
    short = replace(recipe(variant, "smoke"), **{"batch_size": BATCH, "precision": "float32"} | changes)
    return Job(PAPER.name, variant, "smoke", seed, short, True, STAND_IN, device, folder, "test", CODE)


def finished(folder, **how) -> Record:
    return run_job(job(folder, **how))[0]


def cut_after(steps: int, folder, **how) -> None:
    with helpers.killed_after(steps):
        run_job(job(folder, **how))


# ---- the recipe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_rate_falls_by_4_percent_every_8_epochs(variant):
    """Sec. 6: "decreasing the learning rate by 4% every 8 epochs"."""
    full = VARIANTS[variant]
    rate = full.learning_rate
    for epoch in range(full.epochs):
        if epoch and epoch % 8 == 0:
            rate -= 0.04 * rate
        assert learning_rate(full, epoch) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_what_the_paper_gives_of_a_recipe(variant):
    full = VARIANTS[variant]
    assert (full.momentum, full.head_weight, full.held_out) == (0.9, 0.3, False)


def test_variants_differ_from_the_default_in_what_their_names_say():
    default = VARIANTS["flowers"]
    assert (default.network, default.heads) == ("paper", True)
    assert VARIANTS["flowers-without-heads"] == replace(default, heads=False)
    assert VARIANTS["flowers-bn"] == replace(default, network="bn")


def test_the_variants_are_those_of_paper_yaml_and_the_claims_are_on_imagenet():
    assert set(VARIANTS) | set(imagenet.VARIANTS) == set(PAPER.variants)
    assert {claim.variant for claim in PAPER.claims} == {"imagenet", "imagenet-ensemble"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_presets_change_nothing_but_the_length_and_the_smallest_size(variant):
    full = VARIANTS[variant]
    assert recipe(variant, "full") == full
    for preset, standin in (("quick", False), ("smoke", True), ("full", True), ("quick", True)):
        short = recipe(variant, preset, standin)
        assert short.epochs < full.epochs / 4
        assert replace(short, epochs=full.epochs, side=full.side) == full
        assert short.side == (80 if preset == "smoke" else full.side)


# ---- the loop -------------------------------------------------------------------------------------


def plain_loop(few: LabelledPictures, steps: int, work: Job) -> tuple[dict, list[dict]]:
    """The paper's training as one would write it down; the draws are the project's.

    Returns:
        The averaged weights, and the norms of the gradients in every step.
    """
    how, seed, numbers = work.recipe, work.seed, split(few).train
    pictures = [few.pictures[number] for number in numbers]
    mean = torch.cat([picture.flatten(1).double() for picture in pictures], dim=1).mean(1).float()[:, None, None]
    model = GoogLeNet(5, how.network, how.heads, how.side)
    initialise(model, generator(seed, "initial weights"), how.initial_weights)
    velocity = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    average, norms = {}, []
    for epoch in range(100):
        order = torch.randperm(len(pictures), generator=generator(seed, "order", epoch))
        for index, batch in enumerate(order.split(BATCH)):
            if len(norms) == steps:
                return average, norms
            some = stack([pictures[number] for number in batch])
            patches = training_batch(some, how.side, how.distortion, generator(seed, "patches", epoch, index))
            outputs = model.train()((patches - mean) * how.grey_level, generator(seed, "dropout", epoch, index))
            losses = [F.cross_entropy(logits, few.labels[numbers[batch]]) for logits in outputs]
            model.zero_grad()
            (losses[0] + 0.3 * sum(losses[1:])).backward()
            norms.append({name: part.norm().item() for name, part in gradients(model).items()})
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    velocity[name] = 0.9 * velocity[name] + weight.grad + how.weight_decay * weight
                    weight -= how.learning_rate * velocity[name]
                share = how.averaging if average else 0.0
                now = {name: tensor.clone() for name, tensor in model.state_dict().items()}
                average = {name: share * average.get(name, 0) + (1 - share) * tensor for name, tensor in now.items()}
    raise AssertionError


def gradients(model: GoogLeNet) -> dict[str, torch.Tensor]:
    """All gradients of each module before the heads' own, in one vector."""
    names = dict.fromkeys(name.split(".")[0] for name, _ in model.named_parameters() if not name.startswith("heads"))
    return {name: torch.cat([p.grad.flatten() for p in model.get_submodule(name).parameters()]) for name in names}


@pytest.mark.parametrize(("variant", "rate"), [("flowers", 0.01), ("flowers-bn", 1e-6)])
def test_the_loop_is_a_plain_one(tmp_path, few, narrow, variant, rate):
    """Up to rounding: the averaged weights, and the norms in the curves; three steps are an epoch.

    At a rate that learns, batch normalization over so few pictures makes rounding errors grow.
    """
    work = job(tmp_path, variant, seed=3, epochs=1, learning_rate=rate)
    record = run_job(work)[0]
    ours = load_weights(work.folder / record.weights.file)
    expected, norms = plain_loop(few, PER_EPOCH, work)
    assert set(ours) == {name for name in expected if not name.startswith("heads")}
    for name, weight in ours.items():
        torch.testing.assert_close(weight, expected[name].to(weight.dtype), rtol=1e-3, atol=1e-4, msg=name)
    for name in norms[0]:
        mean = sum(step[name] for step in norms) / PER_EPOCH
        assert record.curves[f"gradient_{name}"] == [pytest.approx(mean, rel=1e-2)], name
    assert record.metrics["training"]["gradient_norm"] == record.curves["gradient_conv1"][0]


def test_every_epoch_shows_every_training_picture_once_in_an_order_of_its_own(tmp_path, few, narrow, monkeypatch):
    honest, shown = train.training_batch, []

    def watched(pictures, *how):
        shown.append([tuple(pixels[:, :3, :3].flatten().tolist()) for pixels in pictures.pixels])
        return honest(pictures, *how)

    monkeypatch.setattr(train, "training_batch", watched)
    finished(tmp_path)
    assert [len(batch) for batch in shown] == [6, 6, 3] * 2
    first, second = sum(shown[:PER_EPOCH], []), sum(shown[PER_EPOCH:], [])
    expected = [few.pictures[number] for number in split(few).train]
    lying = [picture.mT if picture.shape[1] > picture.shape[2] else picture for picture in expected]
    assert first != second
    assert sorted(first) == sorted(second) == sorted(tuple(part[:, :3, :3].flatten().tolist()) for part in lying)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, narrow):
    with pytest.raises(NumbersError, match="the loss in epoch 1 is"):
        finished(tmp_path, learning_rate=1e30, batch_size=5)


def test_held_out_pictures_neither_train_nor_are_the_test_pictures(tmp_path, few, narrow, monkeypatch):
    honest, trained, tested = train.mean_colour, [], []
    monkeypatch.setattr(train, "mean_colour", lambda pictures: trained.extend(pictures) or honest(pictures))
    predict = train.predict
    monkeypatch.setattr(train, "predict", lambda of, shown, *how: tested.extend(shown) or predict(of, shown, *how))
    record = finished(tmp_path, held_out=True, epochs=1)
    forbidden = {id(few.pictures[number]) for number in split(few).test}
    assert len(trained) == 10 and len({id(picture) for picture in (*trained, *tested)}) == 15
    assert not forbidden & {id(picture) for picture in (*trained, *tested)}
    assert "held_out_error" in record.curves and "test_error" not in record.curves


# ---- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", the_others_slow(VARIANTS, "flowers", "flowers-bn"))
def test_every_variant_trains_resumes_and_evaluates(tmp_path, variant):
    whole = finished(tmp_path / "whole", variant=variant)
    cut_after(4, tmp_path / "cut", variant=variant)
    resumed = finished(tmp_path / "cut", variant=variant)
    assert resumed.weights.sha256 == whole.weights.sha256
    assert (resumed.metrics, resumed.curves, resumed.details) == (whole.metrics, whole.curves, whole.details)
    assert {protocol: set(values) for protocol, values in whole.metrics.items()} == {
        "1-crop": {"test_error", "train_error"},
        "10-crop": {"test_error"},
        "training": {"gradient_norm"},
    }
    assert set(whole.metrics) <= set(PAPER.protocols)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_killed_at_any_step_it_ends_with_the_same_bits(tmp_path, runs, steps):
    cut_after(steps, tmp_path)
    assert finished(tmp_path).weights.sha256 == finished(runs).weights.sha256


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", VARIANTS)
def test_on_a_gpu_too_bits_follow_from_the_seed_and_survive_a_kill(tmp_path, variant):
    how = {"variant": variant, "device": "cuda", "precision": "fast"}
    whole = finished(tmp_path / "whole", **how)
    cut_after(4, tmp_path / "cut", **how)
    resumed = finished(tmp_path / "cut", **how)
    assert (resumed.weights.sha256, resumed.curves) == (whole.weights.sha256, whole.curves)
    assert finished(tmp_path / "other", seed=1, **how).weights.sha256 != whole.weights.sha256


def test_bits_follow_from_the_seed_and_not_from_global_draws_or_tests(tmp_path, runs, monkeypatch):
    whole = finished(runs)
    assert finished(runs, seed=1).weights.sha256 != whole.weights.sha256
    monkeypatch.setattr(train, "classify", lambda model, pictures, *_: torch.rand(len(pictures), 5))
    assert finished(tmp_path).weights.sha256 == whole.weights.sha256


def other_average(kept: dict) -> None:
    kept["parts"]["average"]["module.linear.bias"].add_(1e-3)


@pytest.mark.parametrize("mistake", [step_off_by_one, other_average, other_velocity])
def test_a_resume_with_a_mistake_would_be_noticed(tmp_path, runs, mistake):
    cut_after(2, tmp_path)
    spoil_checkpoint(job(tmp_path).folder, mistake)
    assert finished(tmp_path).weights.sha256 != finished(runs).weights.sha256


# ---- evaluation -----------------------------------------------------------------------------------


def test_the_weights_that_a_run_leaves_give_its_numbers_again(runs, few):
    work, record = job(runs), finished(runs)
    weights = load_weights(work.folder / record.weights.file)
    measured = evaluate(weights, work.recipe, STAND_IN, "cpu")
    assert measured.details == record.details
    assert measured.metrics == {name: record.metrics[name] for name in ("1-crop", "10-crop")}
    matrix = torch.tensor(measured.details["confusion_matrix"])
    parts = split(few)
    assert matrix.sum(1).tolist() == few.labels[parts.test].bincount().tolist()
    wrong = matrix.sum() - matrix.trace()
    assert measured.metrics["10-crop"]["test_error"] == pytest.approx(100 * wrong.item() / len(parts.test))
    with pytest.raises(UsageError, match="weights of another model"):
        evaluate(weights, replace(work.recipe, network="bn"), STAND_IN, "cpu")


def test_one_crop_is_the_centre_less_the_training_pictures_mean(runs, few):
    """As one would measure it: the mean of ten pictures by hand, one picture at a time."""
    work, record = job(runs), finished(runs)
    model = GoogLeNet(5, heads=False, side=work.recipe.side).eval()
    model.load_state_dict(load_weights(work.folder / record.weights.file))
    parts = split(few)
    mean = mean_colour([few.pictures[number] for number in parts.train])
    ready = predictor(model.state_dict(), work.recipe, lambda: STAND_IN).eval()
    wrong = 0
    for number in parts.test.tolist():
        crop = cut_crops(few.pictures[number], work.recipe.side, PROTOCOLS[1])
        logits = model((crop.float() - mean) * work.recipe.grey_level)
        torch.testing.assert_close(ready(crop), logits.softmax(1))
        wrong += logits.argmax().item() != few.labels[number]
    assert record.metrics["1-crop"]["test_error"] == 100 * wrong / len(parts.test)


def test_the_mean_colour_is_over_all_pixels_of_pictures_of_all_sizes():
    pictures = [torch.full((3, 2, 3), 10, dtype=torch.uint8), torch.full((3, 4, 1), 20, dtype=torch.uint8)]
    pictures[1][2] = 255
    mean = mean_colour(pictures)
    assert mean.shape == (3, 1, 1) and mean.flatten().tolist() == pytest.approx([14, 14, (60 + 4 * 255) / 10])


def test_gradient_norms_are_of_every_module_before_the_classifier(few):
    model = GoogLeNet(5, side=80)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    sizes = [len(part) ** 0.5 for part in gradients(model).values()]
    assert len(sizes) == 13 and gradient_norms(model).tolist() == pytest.approx(sizes)


# ---- choices and figures --------------------------------------------------------------------------


def test_a_try_keeps_what_was_tried_and_what_it_gave(runs, tmp_path):
    record = finished(tmp_path, held_out=True, epochs=1, learning_rate=0.005)
    row = choose.one_try(record)
    assert (row["variant"], row["learning_rate"], row["epochs"], row["seed"]) == ("flowers", "0.005", "1", "0")
    assert float(row["one_crop"]) == pytest.approx(record.metrics["1-crop"]["test_error"], abs=0.05)
    assert "`learning_rate=0.005`" in choose.page_block([row])
    nothing = {"metrics": {}, "curves": {}, "details": {}, "weights": None}
    failed = record.model_dump() | nothing | {"status": "failed", "failure": "the loss is nan"}
    assert choose.one_try(FailedRecord(**failed)) == row | dict.fromkeys(choose.ERRORS, choose.DIVERGED)
    with pytest.raises(UsageError, match="only runs with `--held-out true`"):
        choose.one_try(finished(runs))


def test_the_page_shows_every_try():
    assert choose.page_block(choose.known_tries(choose.FILE)) in choose.PAGE.read_text(encoding="utf-8")


def test_figures_are_drawn_from_every_variants_records(runs, monkeypatch):
    monkeypatch.setattr(figures, "SHOWN_EPOCHS", (1, 2))
    records = [finished(runs, variant=variant, seed=seed) for variant in VARIANTS for seed in (0, 1)]
    shown = {name: draw(records, lambda dataset: None) for name, draw in figures.FIGURES.items()}
    for axis in shown["gradient_norms"].axes:
        assert [len(line.get_xdata()) for line in axis.lines] == [13] * len(VARIANTS)
        assert [label.get_text() for label in axis.get_xticklabels()][:4] == ["conv1", "conv2 reduce", "conv2", "3a"]
    assert len(shown["error_against_epochs"].axes[0].lines) == 2 * len(records)
    assert len(shown["crops_of_a_picture"].axes) == 144
    boxes = sum(len(axis.patches) for axis in shown["network"].axes)
    assert boxes == 11 + 9 * 7 + 2 * 4  # modules, and the layers of inception modules and of heads
    for name in ("gradient_norms", "error_against_epochs"):
        assert figures.FIGURES[name]([], lambda dataset: None) is None
    plt.close("all")
