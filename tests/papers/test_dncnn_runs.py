"""DnCNN's runs: every variant trains, resumes and is measured; kill -9 changes no bit."""

import math
import signal
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from common.base import paths
from common.base.errors import NumbersError, UsageError
from common.claims.papers import load_paper
from common.data.passports import LocatedData
from common.training import provenance, winograd
from common.training.determinism import generator, make_deterministic
from common.training.records import Record, read_record
from common.training.run import Job, run_job
from common.training.weights import save_weights
from papers.dncnn import choose, data, train
from papers.dncnn.data import load
from papers.dncnn.figures import FIGURES
from papers.dncnn.matlab_noise import randn
from papers.dncnn.model import DnCNN, denoise, for_inference, initialise
from papers.dncnn.train import VARIANTS, recipe
from tests.contract import helpers
from tests.contract.helpers import Ended, bits, seed_folder
from tests.papers.mistakes import spoil_checkpoint
from tests.papers.variants import the_others_slow

PAPER = load_paper("dncnn")
CODE = provenance.code(PAPER.name)
DEFAULT = PAPER.default_variant
needs_compiler = pytest.mark.skipif(winograd._compiled() is None, reason="no C compiler here")
STEPS = 3  # of an epoch of a smoke run, of which there are two


@pytest.fixture(scope="module", autouse=True)
def _restore():
    """Leave the process as it was: runs forbid what is not deterministic."""
    before = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the whole runs lie: each is made once, and whoever asks for it again is given its record."""
    return tmp_path_factory.mktemp("runs")


def job(folder, variant=DEFAULT, seed=0, device="cpu", **changes) -> Job:
    located = LocatedData(PAPER.variants[variant].dataset, "stand-in", None, {})
    short = replace(recipe(variant, "smoke", True), **changes)
    return Job(PAPER.name, variant, "smoke", seed, short, False, located, device, folder, "test", CODE)


def run_smoke(folder, variant=DEFAULT, **how) -> Record:
    return run_job(job(folder, variant, **how))[0]


@pytest.fixture(scope="module")
def whole(runs) -> Record:
    """Of the default variant."""
    return run_smoke(runs)


def interrupted(folder, steps: int, **how) -> None:
    with helpers.killed_after(steps):
        run_smoke(folder, **how)


def essence(record: Record) -> tuple:
    return record.weights.sha256, record.metrics, record.curves, record.details


@pytest.mark.parametrize(
    "variant", the_others_slow(VARIANTS, "sigma25-authors", "three-tasks", "fig2-sgd-direct-no-bn")
)
def test_every_variant_trains_resumes_within_an_epoch_and_is_measured(tmp_path, runs, variant):
    whole = run_smoke(runs, variant)
    assert whole.status == "finished" and len(whole.curves["psnr"]) == 2
    interrupted(tmp_path, STEPS + 2, variant=variant)
    assert essence(run_smoke(tmp_path, variant)) == essence(whole)


def test_runs_with_pictures_held_out_are_kept_once_and_shown(tmp_path, monkeypatch):
    """Those that failed too."""
    monkeypatch.setattr(choose, "HELD_OUT_FILE", tmp_path / "held_out.csv")
    record = run_smoke(tmp_path, "sigma25-hour", held_out=True)
    monkeypatch.setattr(train, "update", lambda *_: torch.tensor(math.inf))
    with pytest.raises(NumbersError):
        run_smoke(tmp_path / "failed", "sigma25-hour", held_out=True, side=8)
    failed = read_record(job(tmp_path / "failed", "sigma25-hour", held_out=True, side=8).record_file)
    for one in (record, record, failed):
        choose.keep_run(one)
    first, second = choose.known_tries(choose.HELD_OUT_FILE)
    psnr = record.metrics["held-out-sigma25"]["psnr"]
    assert (first["held_out_psnr"], first["side"], len(first["curve"].split())) == (f"{psnr:.3f}", "24", 3)
    assert (second["held_out_psnr"], second["side"], second["curve"]) == (choose.DIVERGED, "8", "")
    shown = choose.full_runs([first, second])
    assert "2 epochs at 0.001, 1 epoch at 0.0001" in shown and f"{psnr:.3f}" in shown and choose.DIVERGED in shown


@pytest.mark.parametrize("steps", [1, STEPS, STEPS + 1])
def test_resumed_at_other_places_it_ends_with_the_same_bits(tmp_path, whole, steps):
    interrupted(tmp_path, steps)
    assert essence(run_smoke(tmp_path)) == essence(whole)


@needs_compiler
def test_in_float32_it_trains_with_fewer_multiplications_and_resumes_with_the_same_bits(tmp_path, request):
    fast = run_smoke(tmp_path / "whole", precision="float32")
    assert fast.environment.compiled.startswith("winograd.c by ")
    interrupted(tmp_path / "cut", STEPS + 1, precision="float32")
    assert essence(run_smoke(tmp_path / "cut", precision="float32")) == essence(fast)
    assert run_smoke(tmp_path, precision="fast").environment.compiled in (None, fast.environment.compiled)
    request.getfixturevalue("direct_convolutions")
    direct = run_smoke(tmp_path / "direct", precision="float32")
    assert direct.environment.compiled is None and direct.weights != fast.weights
    assert direct.curves["loss"] == pytest.approx(fast.curves["loss"], rel=0.02)


def test_looking_seldom_at_the_loss_changes_nothing(tmp_path, monkeypatch, whole):
    """As on a GPU: of an epoch's three steps after the second and the last. Killed after one without a look."""
    monkeypatch.setitem(train.STEPS_BETWEEN_LOOKS, "cpu", 2)
    interrupted(tmp_path, STEPS + 1)
    assert essence(run_smoke(tmp_path)) == essence(whole)


@pytest.mark.parametrize(("between", "steps"), [(1, 1), (2, 2), (5, 3)])
def test_a_loss_that_is_not_finite_is_seen_at_the_next_look(tmp_path, monkeypatch, between, steps):
    """At the latest at the end of the epoch. The loss becomes infinite in its first step."""
    taken = []

    def update(*_) -> torch.Tensor:
        taken.append(1)
        return torch.tensor(math.inf if len(taken) == 1 else 1.0)

    monkeypatch.setattr(train, "update", update)
    monkeypatch.setitem(train.STEPS_BETWEEN_LOOKS, "cpu", between)
    with pytest.raises(NumbersError, match="seed 0 failed: the loss in epoch 1 is inf"):
        run_smoke(tmp_path)
    assert len(taken) == steps


def test_the_same_command_gives_the_same_bits_and_another_seed_others(tmp_path, whole):
    assert essence(run_smoke(tmp_path)) == essence(whole)
    assert run_smoke(tmp_path, seed=1).weights.sha256 != whole.weights.sha256


def test_measuring_between_epochs_does_not_disturb(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(train, "mean_psnr", lambda *_: 0.0)
    record = run_smoke(tmp_path)
    assert record.curves["psnr"] == [0, 0] and record.weights.sha256 == whole.weights.sha256


# ---- the schedule -------------------------------------------------------------------


@dataclass
class Step:
    """What the training loop hands to one update, and the loss that it is handed back."""

    optimiser: torch.optim.Optimizer
    rates: set[float]
    remembers: bool  # moments of earlier updates
    limit: float
    loss: float


@pytest.fixture
def steps(monkeypatch) -> list[Step]:
    """Every update of the runs that a test makes."""
    honest, taken = train.update, []

    def update(model, optimiser, y, v, precision, limit):
        rates, remembers = {group["lr"] for group in optimiser.param_groups}, bool(optimiser.state)
        loss = honest(model, optimiser, y, v, precision, limit)
        taken.append(Step(optimiser, rates, remembers, limit, loss.item()))
        return loss

    monkeypatch.setattr(train, "update", update)
    return taken


def test_the_authors_rate_restart_and_no_clipping_in_every_update(tmp_path, steps):
    schedule = ((2, 1e-3, 1e-3), (1, 1e-4, 1e-4))
    curves = run_smoke(tmp_path, "sigma25-authors", learning_rate=schedule).curves
    assert [step.rates for step in steps] == [{1e-3}] * 2 * STEPS + [{1e-4}] * STEPS
    assert curves["rate"] == [1e-3, 1e-3, 1e-4]
    losses = np.array([step.loss for step in steps]).reshape(3, STEPS)
    assert curves["loss"] == pytest.approx(losses.mean(axis=1), rel=1e-12), "of each epoch's steps alone"
    assert [step.remembers for step in steps] == [False, True, True] * 3, "forgotten at the start of every epoch"
    assert all(type(step.optimiser) is torch.optim.Adam and step.limit == 0 for step in steps)


def test_the_printed_rate_clipping_and_momentum_in_every_update(tmp_path, steps):
    curves = run_smoke(tmp_path, "sigma25-printed", learning_rate=((4, 1e-1, 1e-4),)).curves
    rates = [1e-1, 1e-2, 1e-3, 1e-4]
    assert curves["rate"] == pytest.approx(rates)
    assert [rate for step in steps for rate in step.rates] == pytest.approx([r for r in rates for _ in range(STEPS)])
    assert [step.limit for step in steps] == pytest.approx([0.005 / r for r in rates for _ in range(STEPS)])
    assert [step.remembers for step in steps] == [False] + [True] * (4 * STEPS - 1), "never forgotten"
    for step in steps:
        assert type(step.optimiser) is torch.optim.SGD
        assert {group["momentum"] for group in step.optimiser.param_groups} == {0.9}


# ---- resuming with a mistake --------------------------------------------------------


def step_skipped(kept: dict) -> None:
    kept["step"] += 1


def moments_forgotten(kept: dict) -> None:
    for moments in kept["parts"]["optimiser"]["state"].values():
        moments["exp_avg"].zero_()


def statistics_forgotten(kept: dict) -> None:
    kept["parts"]["model"]["layers.3.running_mean"].zero_()


@pytest.mark.parametrize(
    ("sabotage", "variant"),
    [(step_skipped, DEFAULT), (moments_forgotten, DEFAULT), (statistics_forgotten, "sigma25-printed")],
)  # the authors' moments of batch normalization are those of the last batch, whatever came before
def test_a_resume_with_a_mistake_gives_other_bits(tmp_path, runs, sabotage, variant):
    interrupted(tmp_path, STEPS + 1, variant=variant)
    spoil_checkpoint(job(tmp_path, variant).folder, sabotage)
    assert run_smoke(tmp_path, variant).weights.sha256 != run_smoke(runs, variant).weights.sha256


# ---- kill -9 ------------------------------------------------------------------------


def command(folder, **how) -> Ended:
    words = ["dncnn", "--preset", "smoke", "--runs-dir", folder]
    return helpers.run(*words, log=folder, prepare=helpers.save_often_on_two_threads, **how)


def test_killed_while_it_writes_it_goes_on_and_ends_with_the_same_bits(tmp_path):
    """In the second epoch, of samples 13 to 24."""
    assert command(tmp_path / "whole").code == 0
    assert command(tmp_path / "cut", fault="replace:step-000000000020:KILL").code == -signal.SIGKILL
    again = command(tmp_path / "cut")
    assert again.code == 0 and "resuming seed 0 at 16 samples" in again.err
    assert bits(tmp_path / "cut") == bits(tmp_path / "whole")
    assert not list(seed_folder(tmp_path / "cut").glob("*.ckpt"))


# ---- a GPU --------------------------------------------------------------------------


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_gpu
@pytest.mark.parametrize("variant", [DEFAULT, "sigma25-printed", "three-tasks"])
def test_on_a_gpu_too_a_resumed_run_ends_with_the_same_bits(tmp_path, variant):
    whole = run_smoke(tmp_path / "whole", variant, device="cuda")
    interrupted(tmp_path / "parts", STEPS + 2, variant=variant, device="cuda")
    assert essence(run_smoke(tmp_path / "parts", variant, device="cuda")) == essence(whole)


@needs_gpu
def test_on_a_gpu_too_another_seed_ends_with_other_bits(tmp_path):
    first, other = (run_smoke(tmp_path, seed=seed, device="cuda") for seed in (0, 1))
    assert first.weights.sha256 != other.weights.sha256


@needs_gpu
def test_a_gpu_cuts_the_same_patches():
    draw = np.random.default_rng(0)
    originals = [draw.integers(256, size=shape, dtype=np.uint8) for shape in ((30, 41, 3), (25, 25, 3))]
    cut = []
    for device in ("cpu", "cuda"):
        pictures = data.Pictures(originals, 12, device)
        patches = data.random_patches(pictures, 50, generator(0, "cut")).turned(torch.arange(50) % 8)
        cut.append(pictures.cut(patches.to(device)).cpu())
    assert torch.equal(*cut)


@needs_gpu
@pytest.mark.parametrize("tile", [64, 1000])
def test_a_gpu_denoises_as_a_cpu_does(tile):
    make_deterministic(0)  # without TF32
    model = DnCNN(17)
    initialise(model, "he", generator(0, "denoised"))
    noisy = torch.rand(2, 1, 150, 97, generator=generator(0, "noisy"))
    found = [denoise(for_inference(model.to(device)), noisy.to(device), tile).cpu() for device in ("cpu", "cuda")]
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


# ---- figures ------------------------------------------------------------------------

SHOWN_SIDE = 140  # of a stand-in picture that is larger than what the figure shows, and its margin


@pytest.fixture
def drawn(monkeypatch):
    """The figures of some records; the test pictures are the stand-in's, in a larger size."""
    monkeypatch.setattr(data, "STANDIN_TEST_SHAPES", ((SHOWN_SIDE, SHOWN_SIDE + 1),) * 2)
    located = LocatedData("bsd", "stand-in", None, {})

    def draw(records: list[Record], there: bool = True) -> dict[str, Figure | None]:
        return {name: function(records, lambda _: located if there else None) for name, function in FIGURES.items()}

    yield draw
    plt.close("all")


def renamed(record: Record, variant: str, *sigmas: int, **fields) -> Record:
    """The record as if it were another variant's, measured at these noise levels."""
    metrics = {name.replace("sigma25", f"sigma{s}"): values for name, values in record.metrics.items() for s in sigmas}
    return record.model_copy(update={"variant": variant, "metrics": metrics, **fields})


def one_better(record: Record) -> Record:
    """The record as if it were another seed's, by one dB better at everything."""
    metrics = {name: {"psnr": values["psnr"] + 1} for name, values in record.metrics.items()}
    return record.model_copy(update={"metrics": metrics, "seed": record.seed + 1})


def test_every_figure_is_drawn(tmp_path, monkeypatch, whole, drawn):
    model = DnCNN(17)
    save_weights(model.state_dict(), tmp_path / "published.safetensors")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    published = whole.model_copy(update={"weights": whole.weights.model_copy(update={"file": "published.safetensors"})})
    records = [
        published, one_better(whole), renamed(whole, "sigma25-printed", 25),
        renamed(whole, "sigma50-authors", 50), renamed(whole, "blind-authors", 15, 25, 50),
        renamed(whole, "fig2-sgd-direct-bn", 25), renamed(one_better(whole), "fig2-adam-direct-bn", 25),
    ]  # fmt: skip
    shown = drawn(records)

    (axis,) = shown["psnr_against_epochs"].axes
    assert [len(line.get_xdata()) for line in axis.lines] == [2] * 6  # two seeds, their mean; one, its mean; the paper
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert texts == ["Adam, the authors' code, mean of 2 seeds", "SGD, as printed, 1 seed"]
    low, high = axis.get_ylim()
    assert all(low < line.get_ydata()[-1] < high for line in axis.lines), "where a training ends is seen"

    assert [[len(line.get_xdata()) for line in axis.lines] for axis in shown["figure_2_in_short"].axes] == [[2], [2]]
    (legend,) = shown["figure_2_in_short"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["batch normalization"]

    (axis,) = shown["psnr_against_sigma"].axes
    several, blind = axis.containers
    psnr = whole.metrics["bsd68-sigma25"]["psnr"]
    assert several.lines[0].get_ydata() == pytest.approx([psnr + 0.5 - 28.57, psnr - 25.62])
    assert several.lines[0].get_xdata().round().tolist() == [24, 49] and len(blind.lines[0].get_xdata()) == 3
    low, high = several.lines[1]
    assert (high.get_ydata() - low.get_ydata()) == pytest.approx([1, 0])

    assert shown["set12_before_and_after"].get_suptitle().endswith("on Set12 (sigma25-authors, seed 0)")
    noisy, denoised, clean = shown["set12_before_and_after"].axes[:3]
    label = torch.from_numpy(load(LocatedData("bsd", "stand-in", None, {})).tests["set12"]["flower.jpg"].copy())
    noise = randn(torch.Size((1, *label.shape)))
    whole_picture = denoise(model.eval(), ((label + 25 * noise) / 255)[None].float())[0, 0] * 255
    top, left = (SHOWN_SIDE - 96) // 2, (SHOWN_SIDE + 1 - 96) // 2
    middle = np.s_[top : top + 96, left : left + 96]
    assert np.array_equal(clean.images[0].get_array(), label[middle])
    assert np.array_equal(noisy.images[0].get_array(), (label + 25 * noise[0])[middle].clamp(0, 255))
    assert np.abs(denoised.images[0].get_array() - whole_picture[middle].clamp(0, 255).numpy()).max() < 0.51
    of_picture = whole.metrics["set12-01-sigma25"]["psnr"]
    titles = [axis.get_title() for axis in (noisy, denoised, clean)]
    assert titles == ["noisy, 20.17 dB", f"denoised, {of_picture:.2f} dB", "C.man"]


def test_figures_without_what_they_are_drawn_from_are_none(whole, drawn):
    assert set(drawn([]).values()) == {None}
    assert set(drawn([renamed(whole, "sigma15-printed", 15)]).values()) == {None}
    assert not plt.get_fignums(), "none is left open"
    assert drawn([whole], there=False)["set12_before_and_after"] is None


def test_published_weights_that_a_figure_needs_and_that_are_gone_are_named(whole, drawn):
    gone = whole.weights.model_copy(update={"file": "results/weights/gone.safetensors"})
    with pytest.raises(UsageError, match="gone.safetensors: no such weights file"):
        drawn([whole.model_copy(update={"weights": gone})])
