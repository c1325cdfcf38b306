"""HybridSN's runs: every variant trains, resumes exactly and is measured, on a quarter of the stand-in."""

import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from common.base.errors import Interrupted, NumbersError
from common.claims.papers import load_paper
from common.data.passports import LocatedData
from common.training import provenance
from common.training.records import Record, read_record
from common.training.run import Job, Run, run_job
from common.training.weights import copied, load_weights
from papers.hybridsn import data, figures, train
from papers.hybridsn.eval import evaluate, split_of
from papers.hybridsn.scoring import accuracies
from papers.hybridsn.train import VARIANTS, recipe
from tests.contract import helpers
from tests.papers.float16 import load_in_float16
from tests.papers.mistakes import spoil_checkpoint, step_off_by_one
from tests.papers.variants import the_others_slow

PAPER = load_paper("hybridsn")
CODE = provenance.code(PAPER.name)
RANDOM, DISJOINT = "indian_pines-random30", "indian_pines-disjoint"


@pytest.fixture(scope="module", autouse=True)
def small_scene():
    scene = data.synthetic_scene(side=48, fields=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "synthetic_scene", lambda: scene)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the whole runs lie: each is made once, and whoever asks for it again is given its record."""
    return tmp_path_factory.mktemp("runs")


def job(folder, variant=RANDOM, seed=0, device="cpu", **changes) -> Job:
    located = LocatedData(PAPER.variants[variant].dataset, "stand-in", None, {})
    smoke = replace(recipe(variant, "smoke"), **{"epochs": 2, "batch_size": 64} | changes)
    return Job(PAPER.name, variant, "smoke", seed, smoke, True, located, device, folder, "test", CODE)


def finished(folder, **how) -> Record:
    return run_job(job(folder, **how))[0]


def cut_after(updates: int, folder, **how) -> None:
    with helpers.killed_after(updates):
        run_job(job(folder, **how))


@pytest.mark.parametrize(
    "variant", the_others_slow(VARIANTS, "indian_pines-random30", "indian_pines-disjoint", "indian_pines-random10-3d")
)
def test_every_variant_trains_resumes_and_evaluates(tmp_path, runs, variant):
    whole = finished(runs, variant=variant)
    cut_after(2, tmp_path, variant=variant)  # in the middle of an epoch, or at its end
    resumed = finished(tmp_path, variant=variant)
    assert resumed.weights.sha256 == whole.weights.sha256
    assert (resumed.metrics, resumed.curves, resumed.details) == (whole.metrics, whole.curves, whole.details)
    assert set(whole.metrics) == {"last", "best-train"} == set(PAPER.protocols)
    assert set(whole.metrics["last"]) == {"oa", "aa", "kappa", "seen_windows"}
    assert (whole.metrics["last"]["seen_windows"] == 0) == variant.endswith("disjoint")


@pytest.mark.parametrize("updates", [1, 4, 5, 7])
def test_killed_at_any_update_it_ends_with_the_same_bits(tmp_path, runs, updates):
    """Four updates are an epoch."""
    cut_after(updates, tmp_path)
    assert finished(tmp_path).weights.sha256 == finished(runs).weights.sha256


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", [RANDOM, DISJOINT])
def test_on_a_gpu_too_bits_follow_from_the_seed_and_survive_a_kill(tmp_path, variant):
    whole = finished(tmp_path / "whole", variant=variant, device="cuda")
    cut_after(2, tmp_path / "cut", variant=variant, device="cuda")
    resumed = finished(tmp_path / "cut", variant=variant, device="cuda")
    assert resumed.weights.sha256 == whole.weights.sha256 and resumed.metrics == whole.metrics
    other = finished(tmp_path / "other", variant=variant, seed=1, device="cuda")
    assert other.weights.sha256 != whole.weights.sha256


def small_and_saved_often():
    """In a process of its own, before the command."""
    scene = data.synthetic_scene(side=48, fields=16)
    data.synthetic_scene = lambda: scene
    helpers.save_often_on_two_threads()


def test_kill_9_and_the_same_command_end_with_the_same_bits(tmp_path):
    def command(runs: str, **how) -> helpers.Ended:
        words = ["hybridsn", "--preset", "smoke", "--runs-dir", tmp_path / runs]
        return helpers.run(*words, log=tmp_path / "log", prepare=small_and_saved_often, **how)

    assert command("whole").code == 0
    assert command("cut", fault="replace:5:KILL").code == -signal.SIGKILL and helpers.checkpoints(tmp_path / "cut")
    ended = command("cut")
    assert ended.code == 0 and "resuming seed 0 at" in ended.err
    assert helpers.bits(tmp_path / "cut") == helpers.bits(tmp_path / "whole")


def test_another_seed_gives_other_bits(tmp_path, runs):
    first, again, other = finished(runs), finished(tmp_path), finished(runs, seed=1)
    assert first.weights.sha256 == again.weights.sha256 != other.weights.sha256
    assert first.data.split != other.data.split


def test_other_draws_between_updates_do_not_disturb(tmp_path, runs, monkeypatch):
    """As whoever measures in the middle of a training might make them, from the global generators."""
    drawn = []

    def draw(run: Run) -> None:
        drawn.append((torch.rand(3), np.random.random()))
        torch.manual_seed(run.samples)
        np.random.seed(run.samples)

    whole = finished(runs)
    monkeypatch.setattr(Run, "watchers", [draw])
    assert finished(tmp_path).weights.sha256 == whole.weights.sha256
    assert len(drawn) == 8


def one_weight_off(kept: dict) -> None:
    kept["parts"]["model"]["dense_3.bias"][0] += 1e-6


def other_moments(kept: dict) -> None:
    kept["parts"]["optimiser"]["state"][0]["exp_avg"].mul_(1.001)


@pytest.mark.parametrize("mistake", [step_off_by_one, one_weight_off, other_moments])
def test_a_resume_with_a_mistake_would_be_noticed(tmp_path, runs, mistake):
    cut_after(2, tmp_path)
    spoil_checkpoint(job(tmp_path).folder, mistake)
    assert finished(tmp_path).weights.sha256 != finished(runs).weights.sha256


def test_the_authors_choice_is_the_epoch_with_the_best_training_accuracy(tmp_path, monkeypatch):
    """Where that is not the last one, the weights of that epoch are measured too."""
    honest, honest_predict, measured = train.gradients, train.predict, []
    later = {train.generator(0, "dropout", epoch, step).initial_seed() for epoch in range(3, 8) for step in range(4)}

    def all_wrong_after_the_third(model, windows, pixels, labels, draw, precision):
        loss, correct = honest(model, windows, pixels, labels, draw, precision)
        return loss, 0 if draw.initial_seed() in later else correct

    def predict(model, windows, pixels, device):
        measured.append(copied(model))
        return honest_predict(model, windows, pixels, device)

    monkeypatch.setattr(train, "gradients", all_wrong_after_the_third)
    monkeypatch.setattr(train, "predict", predict)
    long = finished(tmp_path, epochs=8)
    accuracy = long.curves["train_accuracy"]
    assert accuracy[3:] == [0.0] * 5
    best = accuracy.index(max(accuracy)) + 1
    short = finished(tmp_path, epochs=best)
    assert long.metrics["best-train"]["oa"] == short.metrics["last"]["oa"]
    ends = load_weights(job(tmp_path, epochs=best).folder / short.weights.file)
    assert all(torch.equal(weight, ends[name]) for name, weight in measured[0].items())


def test_the_optimiser_is_adam_at_the_recipes_rate_in_every_update(tmp_path, monkeypatch):
    """Four updates are an epoch; with a decay, so that each has a rate of its own."""
    honest, taken = torch.optim.Adam.step, []

    def step(optimiser):
        (group,) = optimiser.param_groups
        taken.append((group["lr"], group["eps"], group["betas"], group["weight_decay"], group["amsgrad"]))
        honest(optimiser)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    finished(tmp_path, decay=0.1)
    assert taken == [(0.001 / (1 + 0.1 * update), 1e-7, (0.9, 0.999), 0, False) for update in range(8)]


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "gradients", lambda *_: (float("nan"), 0))
    monkeypatch.setattr("common.training.run.fast_precision", lambda _: torch.bfloat16)
    with pytest.raises(NumbersError, match="the loss in epoch 1 is nan"):
        finished(tmp_path)
    failed = read_record(job(tmp_path).record_file)
    assert (failed.status, failed.environment.precision) == ("failed", "bfloat16")


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, runs, monkeypatch):
    honest = train.gradients

    def gradients(*words):
        signal.raise_signal(signal.SIGTERM)
        return honest(*words)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(train, "gradients", gradients)
        finished(tmp_path)
    assert finished(tmp_path).weights.sha256 == finished(runs).weights.sha256


def test_the_weights_that_a_run_leaves_give_its_numbers_again(runs):
    for variant in (RANDOM, DISJOINT):
        work, record = job(runs, variant=variant), finished(runs, variant=variant)
        weights = load_weights(work.folder / record.weights.file)
        measured = evaluate(weights, work.recipe, work.data, "cpu")
        assert measured.metrics["last"] == record.metrics["last"]
        assert measured.details == record.details


@pytest.mark.parametrize("variant", [RANDOM, DISJOINT])
def test_weights_in_float16_classify_the_scene_as_their_record_says(tmp_path, runs, monkeypatch, variant):
    work, record = job(runs, variant=variant), finished(runs, variant=variant)
    model, published = load_in_float16(PAPER, work, record, tmp_path, monkeypatch)
    scene = data.load(work.data)
    split = split_of(load_weights(tmp_path / published.weights.file), scene, work.recipe)
    assert split.hash() == record.data.split  # the pixels are whole numbers, which nothing rounds
    logits = model(torch.from_numpy(scene.cube))
    assert logits.shape == (*scene.truth.shape, len(scene.classes)) and not logits.requires_grad
    predicted = 1 + logits.argmax(2).numpy().flat[split.test]
    measured = published.metrics_of_file["last"]
    assert accuracies(predicted, scene.truth.flat[split.test]).items() <= measured.items()
    assert measured["oa"] == pytest.approx(record.metrics["last"]["oa"], abs=1)


# ---- figures --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records(runs) -> list[Record]:
    return [finished(runs, variant=variant, seed=seed) for variant, seed in ((RANDOM, 0), (RANDOM, 1), (DISJOINT, 0))]


@pytest.fixture
def drawn(monkeypatch):
    """The figures of some records beside some edition of the scene."""
    monkeypatch.setattr(figures, "FALSE_COLOUR", (30, 20, 10))  # the stand-in has forty bands

    def draw(some: list[Record], edition: str | None) -> dict[str, Figure | None]:
        located = LocatedData("indian_pines", edition, None, {}) if edition else None
        return {name: function(some, lambda dataset: located) for name, function in figures.FIGURES.items()}

    yield draw
    plt.close("all")


def test_every_figure_is_drawn_from_both_protocols(records, drawn):
    shown = drawn(records, "stand-in")
    titles = [axis.get_title() for axis in shown["scene_and_maps"].axes]
    counts = [np.array(record.details["confusion_matrix"]) for record in (records[0], records[2])]
    wrong = [f"{matrix.sum() - matrix.trace():,} of {matrix.sum():,} wrong" for matrix in counts]
    assert titles == [
        "false colours", "ground truth", "random30, seed 0: all pixels", f"random30, seed 0: {wrong[0]}",
        "disjoint, seed 0: all pixels", f"disjoint, seed 0: {wrong[1]}",
    ]  # fmt: skip
    assert len(shown["splits"].axes) == 4
    assert [len(axis.lines) for axis in shown["training_curves"].axes] == [2, 2]
    assert [len(axis.collections) for axis in shown["training_curves"].axes] == [2, 2]  # bands
    (axis,) = shown["per_class"].axes
    assert [len(group) for group in axis.containers] == [6, 6]
    written = [text.get_text() for text in axis.texts]
    assert written[6:] == [
        f"{100 * row[number] / row.sum():.1f}" if row.sum() else "not scored" for number, row in enumerate(counts[1])
    ]
    assert "not scored" in written


def test_figures_keep_editions_apart(records, drawn):
    """Records of one edition are never drawn on the scene of another; curves name theirs."""
    shown = drawn([record for record in records if record.variant == RANDOM], "stand-in")
    assert len(shown["scene_and_maps"].axes) == 4
    official = [
        record.model_copy(update={"data": record.data.model_copy(update={"edition": "official"})}) for record in records
    ]
    shown = drawn(official, "stand-in")
    assert shown["scene_and_maps"] is None and shown["per_class"] is None
    (legend,) = drawn(records + official, "stand-in")["training_curves"].legends
    assert len({text.get_text() for text in legend.get_texts()}) == 4
    assert drawn(records, None)["splits"] is None


@pytest.mark.slow
def test_a_whole_run_on_the_real_scene_fits_in_1500_mb(tmp_path):
    """An epoch stands for a hundred: each takes the same memory."""
    command = ["hybridsn", "--data", "real", "--epochs", "1", "--runs-dir", str(tmp_path)]
    measure = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:]\ntry: runpy.run_module('common', run_name='__main__')\n"
    )
    measure += "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", measure, "common", *command], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stderr.split()[-1]) < 1500
