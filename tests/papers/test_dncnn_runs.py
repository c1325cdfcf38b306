"""DnCNN's runs: every variant trains, resumes and is measured; kill -9 changes no bit; pictures are restored."""

import errno
import json
import re
import signal
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from common.base import paths
from common.base.errors import UsageError
from common.claims.papers import load_paper
from common.cli.commands import main
from common.data.passports import LocatedData
from common.training.determinism import generator, make_deterministic
from common.training.device import fast_precision
from common.training.records import Record
from common.training.run import Job, Run, run_job
from common.training.weights import load_weights, save_weights
from papers.dncnn import data, train
from papers.dncnn.data import load
from papers.dncnn.figures import FIGURES
from papers.dncnn.model import DnCNN, denoise, for_inference, initialise
from papers.dncnn.noisy_sets import noise_of_picture
from papers.dncnn.train import VARIANTS, recipe
from tests.contract import helpers
from tests.contract.helpers import Ended, assert_told, bits, seed_folder

PAPER = load_paper("dncnn")
DEFAULT = PAPER.default_variant
STEPS = 3  # of an epoch of a smoke run, of which there are two


@pytest.fixture(scope="module", autouse=True)
def _restore():
    """Leave the process as it was: runs forbid what is not deterministic."""
    before = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(before)


def run_smoke(folder, variant=DEFAULT, seed=0, device="cpu", **changes) -> Record:
    located = LocatedData(PAPER.variants[variant].dataset, "stand-in", None, {})
    short = replace(recipe(variant, "smoke", True), **changes)
    return run_job(Job(PAPER, variant, "smoke", seed, short, False, located, device, folder, False, "test"))[0]


def interrupted(folder, steps: int, **how) -> None:
    with helpers.killed_after(steps):
        run_smoke(folder, **how)


def essence(record: Record) -> tuple:
    return record.weights.sha256, record.metrics, record.curves, record.details


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_resumes_in_the_middle_of_an_epoch_and_is_measured(tmp_path, variant):
    whole = run_smoke(tmp_path / "whole", variant)
    assert whole.status == "finished" and len(whole.curves["psnr"]) == 2
    interrupted(tmp_path / "parts", STEPS + 2, variant=variant)
    assert essence(run_smoke(tmp_path / "parts", variant)) == essence(whole)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Record:
    return run_smoke(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("steps", [1, STEPS, STEPS + 1])
def test_resumed_at_other_places_it_ends_with_the_same_bits(tmp_path, whole, steps):
    interrupted(tmp_path, steps)
    assert essence(run_smoke(tmp_path)) == essence(whole)


def test_looking_seldom_it_ends_with_the_same_bits(tmp_path, monkeypatch, whole):
    """As a GPU does: of an epoch's three steps after the second and the last. Killed in the middle of an epoch, at
    its end, and in the middle of the next."""
    monkeypatch.setitem(train.STEPS_BETWEEN_LOOKS, "cpu", 2)
    seldom = run_smoke(tmp_path / "whole")
    assert seldom.weights.sha256 == whole.weights.sha256
    assert seldom.curves["loss"] == pytest.approx(whole.curves["loss"], rel=1e-6)  # summed in another order
    for looks in (1, 2, 3):
        interrupted(tmp_path / str(looks), looks)
        assert essence(run_smoke(tmp_path / str(looks))) == essence(seldom)


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
    """What the training loop hands to one update."""

    optimiser: torch.optim.Optimizer
    rates: set[float]
    remembers: bool  # moments of earlier updates
    limit: float


@pytest.fixture
def steps(monkeypatch) -> list[Step]:
    """Every update of the runs that a test makes."""
    honest, taken = train.update, []

    def update(model, optimiser, y, v, bf16, limit):
        rates = {group["lr"] for group in optimiser.param_groups}
        taken.append(Step(optimiser, rates, bool(optimiser.state), limit))
        return honest(model, optimiser, y, v, bf16, limit)

    monkeypatch.setattr(train, "update", update)
    return taken


def test_the_authors_rate_restart_and_no_clipping_in_every_update(tmp_path, steps):
    rates = ((2, 1e-3, 1e-3), (1, 1e-4, 1e-4))
    curves = run_smoke(tmp_path, "sigma25-authors", rates=rates).curves
    assert [step.rates for step in steps] == [{1e-3}] * 2 * STEPS + [{1e-4}] * STEPS
    assert curves["rate"] == [1e-3, 1e-3, 1e-4]
    assert [step.remembers for step in steps] == [False, True, True] * 3, "forgotten at the start of every epoch"
    assert all(type(step.optimiser) is torch.optim.Adam and step.limit == 0 for step in steps)


def test_the_printed_rate_clipping_and_momentum_in_every_update(tmp_path, steps):
    curves = run_smoke(tmp_path, "sigma25-printed", rates=((4, 1e-1, 1e-4),)).curves
    rates = [1e-1, 1e-2, 1e-3, 1e-4]
    assert curves["rate"] == pytest.approx(rates)
    assert [rate for step in steps for rate in step.rates] == pytest.approx([r for r in rates for _ in range(STEPS)])
    assert [step.limit for step in steps] == pytest.approx([0.005 / r for r in rates for _ in range(STEPS)])
    assert [step.remembers for step in steps] == [False] + [True] * (4 * STEPS - 1), "never forgotten"
    for step in steps:
        assert type(step.optimiser) is torch.optim.SGD
        assert {group["momentum"] for group in step.optimiser.param_groups} == {0.9}


# ---- resuming with a mistake --------------------------------------------------------


def batch_skipped(state):
    state["state"]["batch"] += 1


def moments_forgotten(state):
    for moments in state["optimiser"]["state"].values():
        moments["exp_avg"].zero_()


def statistics_forgotten(state):
    state["model"]["layers.3.running_mean"].zero_()


@pytest.mark.parametrize(
    ("sabotage", "variant"),
    [(batch_skipped, DEFAULT), (moments_forgotten, DEFAULT), (statistics_forgotten, "sigma25-printed")],
)  # the authors' moments of batch normalization are those of the last batch, whatever came before
def test_a_resume_with_a_mistake_gives_other_bits(tmp_path, monkeypatch, sabotage, variant):
    right = run_smoke(tmp_path / "right", variant)
    interrupted(tmp_path / "wrong", STEPS + 1, variant=variant)
    honest = Run.resume

    def resume(run):
        state = honest(run)
        sabotage(state)
        return state

    monkeypatch.setattr(Run, "resume", resume)
    assert run_smoke(tmp_path / "wrong", variant).weights.sha256 != right.weights.sha256


# ---- kill -9 ------------------------------------------------------------------------


def command(folder, **how) -> Ended:
    words = ["dncnn", "--preset", "smoke", "--runs-dir", folder]
    return helpers.run(*words, log=folder, prepare=helpers.save_often_on_two_threads, **how)


def test_killed_while_it_writes_and_started_again_it_ends_with_the_same_bits(tmp_path):
    assert command(tmp_path / "whole").code == 0
    # Writes: run.json, a checkpoint for each of three steps, curves.csv, a checkpoint; then the second epoch.
    for write, resumes in ((3, "at 4 samples"), (8, "at 16 samples")):
        folder = tmp_path / str(write)
        assert command(folder, fault=f"replace:{write}:KILL").code == -signal.SIGKILL
        again = command(folder)
        assert again.code == 0 and f"resuming seed 0 {resumes}" in again.err
        assert bits(folder) == bits(tmp_path / "whole")
        assert not list(seed_folder(folder).glob("*.ckpt"))


def test_what_was_begun_on_another_model_of_gpu_is_not_resumed(tmp_path, monkeypatch):
    def killed(*_):
        raise helpers.Killed

    monkeypatch.setattr(train, "train", killed)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    for model, ends in (("NVIDIA H200", helpers.Killed), ("NVIDIA H200", helpers.Killed), ("NVIDIA L4", UsageError)):
        monkeypatch.setattr("torch.cuda.get_device_name", lambda model=model: model)
        with pytest.raises(ends) as ended:
            run_smoke(tmp_path, device="cuda")
    assert "was begun with other processor. Start over with --fresh." in str(ended.value)


def test_what_was_begun_on_a_cpu_may_go_on_on_one_that_multiplies_alike(tmp_path):
    run_smoke(tmp_path)
    begun = json.loads((seed_folder(tmp_path) / "run.json").read_text())
    assert begun["processor"] == f"cpu, {fast_precision('cpu')}"


# ---- a GPU --------------------------------------------------------------------------


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_gpu
@pytest.mark.parametrize("variant", [DEFAULT, "sigma25-printed", "three-tasks"])
def test_on_a_gpu_too_a_resumed_run_ends_with_the_same_bits(tmp_path, monkeypatch, variant):
    monkeypatch.setitem(train.STEPS_BETWEEN_LOOKS, "cuda", 1)
    whole = run_smoke(tmp_path / "whole", variant, device="cuda")
    interrupted(tmp_path / "parts", STEPS + 2, variant=variant, device="cuda")
    assert essence(run_smoke(tmp_path / "parts", variant, device="cuda")) == essence(whole)


@needs_gpu
def test_on_a_gpu_too_another_seed_ends_with_other_bits(tmp_path):
    first, other = (run_smoke(tmp_path, seed=seed, device="cuda") for seed in (0, 1))
    assert first.weights.sha256 != other.weights.sha256


@needs_gpu
def test_a_gpu_cuts_the_same_patches():
    originals = [pixels(30, 41, 3), pixels(25, 25, 3)]
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
    details = {name.replace("sigma25", f"sigma{s}"): values for name, values in record.details.items() for s in sigmas}
    return record.model_copy(update={"variant": variant, "details": details, **fields})


def test_every_figure_is_drawn(tmp_path, monkeypatch, whole, drawn):
    model = DnCNN(17)
    save_weights(model.state_dict(), tmp_path / "published.safetensors")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    published = whole.model_copy(update={"weights": whole.weights.model_copy(update={"file": "published.safetensors"})})
    records = [
        published, renamed(whole, DEFAULT, 25, seed=1), renamed(whole, "sigma25-printed", 25),
        renamed(whole, "sigma50-authors", 50), renamed(whole, "blind-authors", 15, 25, 50),
    ]  # fmt: skip
    shown = drawn(records)

    (axis,) = shown["psnr_against_epochs"].axes
    assert [len(line.get_xdata()) for line in axis.lines] == [2] * 6  # two seeds, their mean; one, its mean; the paper
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert texts == ["Adam, the authors' code, mean of 2 seeds", "SGD, as printed, 1 seed"]
    low, high = axis.get_ylim()
    assert all(low < line.get_ydata()[-1] < high for line in axis.lines), "where a training ends is seen"

    (axis,) = shown["psnr_against_sigma"].axes
    several, blind = axis.containers
    draws = np.array(whole.details["bsd68-sigma25: mean of each noise draw"])
    assert several.lines[0].get_ydata() == pytest.approx([draws.mean() - 28.57, draws.mean() - 25.62])
    assert several.lines[0].get_xdata().round().tolist() == [24, 49] and len(blind.lines[0].get_xdata()) == 3
    low, high = several.lines[1]
    assert (high.get_ydata() - low.get_ydata()) == pytest.approx([np.ptp(draws)] * 2)

    noisy, denoised, clean = shown["set12_before_and_after"].axes[:3]
    label = torch.from_numpy(load(LocatedData("bsd", "stand-in", None, {})).tests["set12"]["flower.jpg"].copy())
    noise = noise_of_picture("set12", 0, 0, (1, *label.shape))
    whole_picture = denoise(model.eval(), ((label + 25 * noise) / 255)[None])[0, 0] * 255
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


# ---- eval --image -------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    """Of a network whose residual is zero."""
    model = DnCNN(17)
    torch.nn.init.zeros_(model.layers[-1].weight)
    torch.nn.init.zeros_(model.layers[-1].bias)
    return save_weights(model.state_dict(), tmp_path / "weights.safetensors")


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def restored(capsys, *words) -> Ended:
    with pytest.raises(SystemExit) as ended:
        main(["eval", "dncnn", *map(str, words)])
    return Ended(ended.value.code, *capsys.readouterr())


@pytest.mark.parametrize("shape", [(21, 34), (21, 34, 3)])
def test_a_picture_of_the_users_own_is_restored(tmp_path, capsys, monkeypatch, weights, shape):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels(*shape)).save("holiday.png")
    ended = restored(capsys, "--weights", weights, "--image", "holiday.png")
    assert ended.code == 0 and "holiday-restored.png" in ended.err
    assert np.array_equal(np.asarray(Image.open("holiday-restored.png")), pixels(*shape))


def test_a_picture_lies_upright_and_loses_its_transparency(tmp_path, capsys, weights):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(pixels(20, 30, 4)).save(tmp_path / "a.png", exif=exif)
    ended = restored(capsys, "--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.tiff")
    assert ended.code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.tiff")), np.rot90(pixels(20, 30, 4)[..., :3], -1))


def with_palette(path, **how) -> np.ndarray:
    """Of 8 x 8 colours; what it shows."""
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    picture.putpalette(pixels(64, 3).tobytes())
    picture.save(path, **how)
    return pixels(64, 3).reshape(8, 8, 3)


@pytest.mark.parametrize("transparency", [bytes(range(64)), 5, None], ids=["several", "one", "none"])
@pytest.mark.filterwarnings("error")
def test_a_palette_loses_its_transparency_without_a_word(tmp_path, capsys, weights, transparency):
    shown = with_palette(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    ended = restored(capsys, "--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png")
    assert_told(ended, 0, "b.png: ")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), shown)


@pytest.mark.parametrize("name", ["b.png", "b.TIF", "b.tiff", "b.bmp"])
def test_what_is_written_has_every_pixel_as_it_was_restored(tmp_path, capsys, weights, name):
    Image.fromarray(pixels(21, 34, 3)).save(tmp_path / "a.png")
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "new" / name]
    assert restored(capsys, *words).code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / name)), pixels(21, 34, 3))


@pytest.mark.parametrize("name", ["b.jpg", "b.JPEG"])
def test_jpeg_is_written_finely_and_with_whole_colour(tmp_path, capsys, weights, name):
    Image.fromarray(pixels(21, 34, 3)).save(tmp_path / "a.png")
    Image.fromarray(pixels(21, 34, 3)).save(tmp_path / "right.jpg", quality=95, subsampling=0)
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / name]
    assert restored(capsys, *words).code == 0
    assert (tmp_path / name).read_bytes() == (tmp_path / "right.jpg").read_bytes()


def colour_profile(space: str) -> bytes:
    """As much of an ICC profile as anybody reads here: its head."""
    return struct.pack(">I12s4s20s", 128, b"", space.encode(), b"").ljust(128, b"\0")


@pytest.mark.parametrize("name", ["b.png", "b.tif", "b.jpg"])
@pytest.mark.parametrize(("space", "shape"), [("RGB ", (9, 9, 3)), ("GRAY", (9, 9))])
def test_the_colour_profile_is_handed_on(tmp_path, capsys, weights, name, space, shape):
    Image.fromarray(pixels(*shape)).save(tmp_path / "a.png", icc_profile=colour_profile(space))
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / name]
    assert_told(restored(capsys, *words), 0, f"{name}: ")
    assert Image.open(tmp_path / name).info["icc_profile"] == colour_profile(space)


def test_of_a_cameras_jpeg_the_picture_is_taken_and_not_the_preview_behind_it(tmp_path, capsys, weights):
    preview = Image.new("L", (4, 4))
    Image.fromarray(pixels(16, 24)).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    words = ["--weights", weights, "--image", tmp_path / "a.jpg", "--output", tmp_path / "b.png"]
    assert_told(restored(capsys, *words), 0, "b.png: ")
    assert Image.open(tmp_path / "b.png").size == (24, 16)


def test_a_colour_profile_that_is_left_out_is_told(tmp_path, capsys, weights):
    tell = partial(restored, capsys, "--weights", weights, "--image")
    Image.fromarray(pixels(9, 9, 3)).save(tmp_path / "a.png", icc_profile=colour_profile("RGB "))
    ended = tell(tmp_path / "a.png", "--output", tmp_path / "b.bmp")
    assert_told(ended, 0, f"b.bmp: .bmp holds no colour profile; that of {tmp_path / 'a.png'} is left out.")
    Image.fromarray(pixels(9, 9, 4), "CMYK").save(tmp_path / "a.tif", icc_profile=colour_profile("CMYK"))
    ended = tell(tmp_path / "a.tif", "--output", tmp_path / "c.png")
    assert_told(ended, 0, "a.tif: its colour profile is none for RGB and is left out.")
    assert "icc_profile" not in Image.open(tmp_path / "c.png").info


@pytest.mark.filterwarnings("error")
def test_a_picture_above_pils_limit_is_read_and_the_limit_stays(tmp_path, capsys, monkeypatch, weights):
    Image.fromarray(pixels(21, 34)).save(tmp_path / "a.png")
    for limit in (700, 100):  # above the first PIL warns, above twice the second it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
        assert_told(restored(capsys, *words), 0, "b.png: ")
        assert limit == Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert_told(restored(capsys, *words), 2, "is no picture")
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_picture_that_no_memory_holds_ends_with_5(tmp_path, capsys, monkeypatch, weights):
    def load(_):
        raise MemoryError

    Image.fromarray(pixels(21, 34)).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
    assert_told(restored(capsys, *words), 5, "a.png does not fit into memory.")


def test_a_large_picture_shows_how_far_it_is_and_one_of_one_tile_nothing(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.setattr("common.base.progress.QUIET_LINE_EVERY_S", -1.0)  # a line after every tile
    for shape in ((12, 1500, 3), (20, 30, 3)):
        Image.fromarray(pixels(*shape)).save(tmp_path / "a.png")
        words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
        ended = restored(capsys, *words)
        shown = re.findall(r"^restoring: (\d+)%, [\d,]+ values/s, \d+ min left$", ended.err, re.MULTILINE)
        assert ended.code == 0 and len(ended.complaint) == len(shown) + 1
        assert shown == (["11", "23", "33", "45", "56", "67", "78", "89", "100"] if shape[1] > 512 else [])
        assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), pixels(*shape))


def test_a_picture_is_restored_by_the_variant_that_the_weights_name(tmp_path, capsys, weights):
    save_weights(load_weights(weights), weights, "dncnn/sigma50-printed/seed-1")
    Image.fromarray(pixels(9, 9)).save(tmp_path / "a.png")
    tell = partial(
        restored, capsys, "--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"
    )
    assert_told(tell(), 0, "restored by dncnn / sigma50-printed")
    assert_told(tell("--variant", "sigma25-printed"), 2, "weights of dncnn / sigma50-printed, not of dncnn / sigma25-")


def deep(path):
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(path)


def deep_colour(path):
    """As no PIL writes it: 16 bits for each of three channels."""
    parts = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0), zlib.compress(bytes(7)), b""
    chunks = [name + part for name, part in zip((b"IHDR", b"IDAT", b"IEND"), parts, strict=True)]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def deep_tiff(path):
    """The same as TIFF, whatever the name says: its tags, the three bit depths, one pixel."""
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 110), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 116),
            (277, 3, 1, 3), (278, 3, 1, 1)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    content = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    path.write_bytes(content + struct.pack("<3H", 16, 16, 16) + bytes(6))


def deep_ppm(path):
    path.write_bytes(b"P6 2 1 1023\n" + bytes(12))


def deep_plain_ppm(path):
    path.write_bytes(b"P3 1 1 65535\n1 2 3\n")


def animated(path):
    Image.fromarray(pixels(9, 9, 3)).save(path, "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9))])


def animated_png(path):
    Image.fromarray(pixels(9, 9, 3)).save(path, save_all=True, append_images=[Image.new("RGB", (9, 9))])


def of_two_pages(path):
    Image.fromarray(pixels(9, 9)).save(path, "TIFF", save_all=True, append_images=[Image.new("L", (9, 9))])


def folder(path):
    path.mkdir()


def other_format(path):
    Image.fromarray(pixels(9, 9)).save(path, "TGA")


def no_picture(path):
    path.write_bytes(b"no picture")


def cut(path):
    Image.fromarray(pixels(50, 50)).save(path)
    path.write_bytes(path.read_bytes()[:500])


def missing(path):
    pass


@pytest.mark.parametrize(
    ("make", "said"),
    [(missing, "no such picture"), (no_picture, "is no picture"), (cut, "is no picture"), (deep, "save it with 8"),
     (deep_colour, "save it with 8"), (deep_tiff, "save it with 8"), (deep_ppm, "save it with 8"),
     (deep_plain_ppm, "save it with 8"), (animated, "holds 2 pictures"), (animated_png, "holds 2 pictures"),
     (of_two_pages, "holds 2 pictures"), (folder, "a.png is a folder: --image takes one picture."),
     (other_format, "of a format that is read here (BMP, GIF, ")],
)  # fmt: skip
def test_a_picture_that_cannot_be_used_ends_with_2(tmp_path, capsys, weights, make, said):
    make(tmp_path / "a.png")
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
    assert_told(restored(capsys, *words), 2, said)
    assert not (tmp_path / "b.png").exists()


SHALLOW_PPM = [b"P6 1 1 255\n\1\2\3", b"P6 1 1 15\n\1\2\3", b"P5 1 1 255\n\1", b"P1 1 1 1", b"P3 1 1 9 1 2 3"]


@pytest.mark.parametrize("content", SHALLOW_PPM)
def test_a_ppm_of_no_more_than_8_bits_is_read(tmp_path, capsys, weights, content):
    (tmp_path / "a.ppm").write_bytes(content)
    words = ["--weights", weights, "--image", tmp_path / "a.ppm", "--output", tmp_path / "b.png"]
    assert restored(capsys, *words).code == 0


def never(*_):
    raise AssertionError("restored before the name was looked at")


def test_slips_of_image_end_with_2_and_write_nothing(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.setattr("papers.dncnn.eval.denoise", never)
    image = tmp_path / "a.png"
    Image.fromarray(pixels(9, 9)).save(image)
    before = image.read_bytes()
    tell = partial(restored, capsys, "--image", image)
    assert_told(tell("--weights", weights, "--output", image), 2, "that is the picture itself")
    for name in ("b.xyz", "b.ico", "b.gif", "b.webp", "b.psd", "b"):  # some would be smaller, or of fewer colours
        allowed = "a picture is written as .png, .tif, .tiff, .bmp, .jpg, .jpeg only."
        assert_told(tell("--weights", weights, "--output", tmp_path / name), 2, f"{name}: {allowed}")
    assert_told(tell("--weights", weights, "--json"), 2, "--json and --data-dir do not go with --image.")
    assert_told(tell("--weights", weights, "--data-dir", tmp_path), 2, "--json and --data-dir do not go with --image.")
    assert_told(tell("--weights", weights, "--weights", weights), 2, "--image takes one --weights file.")
    assert_told(tell("--weights", tmp_path / "none"), 2, "no such weights file")
    assert_told(tell("--weights", weights, "--variant", "blind-printed"), 2, "weights of another model")
    assert_told(tell("--variant", "three-tasks"), 2, "No weights of dncnn / three-tasks are published.")
    assert image.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_a_picture_too_large_for_a_format_is_told_before_the_work(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.setattr("papers.dncnn.eval.denoise", never)
    Image.new("L", (66_000, 1)).save(tmp_path / "a.png")
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.jpg"]
    assert_told(restored(capsys, *words), 2, "b.jpg: this picture is too large for .jpg. Use .png.")


def test_only_a_file_that_output_names_is_overwritten(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels(9, 9)).save("a.png")
    (tmp_path / "a-restored.png").write_bytes(b"dear")
    tell = partial(restored, capsys, "--weights", weights, "--image", "a.png")
    assert_told(tell(), 2, "a-restored.png is there already. Name a file with --output")
    assert (tmp_path / "a-restored.png").read_bytes() == b"dear"
    assert tell("--output", "a-restored.png").code == 0
    assert np.array_equal(np.asarray(Image.open("a-restored.png")), pixels(9, 9))


def read_only(**_):
    raise OSError(errno.EROFS, "Read-only file system")


def test_where_nothing_can_be_written_is_told_before_the_work(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.setattr("papers.dncnn.eval.denoise", never)
    Image.fromarray(pixels(9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    tell = partial(restored, capsys, "--weights", weights, "--image", tmp_path / "a.png", "--output")
    assert_told(tell(tmp_path / "b.png"), 2, "b.png: that is a folder. Name a file.")
    advice = "Name another place with --output."
    assert_told(tell(tmp_path / "a.png" / "c.png"), 5, f"c.png: Not a directory. {advice}")
    assert_told(tell(tmp_path / f"{'c' * 300}.png"), 5, f"c.png: File name too long. {advice}")
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert_told(tell(tmp_path / "c.png"), 5, f"c.png: Read-only file system. {advice}")
    assert_told(tell(tmp_path / "new" / "c.png"), 5, f"c.png: Read-only file system. {advice}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "weights.safetensors"]


def test_a_disk_that_is_full_in_the_end_is_told_as_it_is(tmp_path, capsys, monkeypatch, weights):
    def fsync(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    Image.fromarray(pixels(9, 9)).save(tmp_path / "a.png")
    monkeypatch.setattr("os.fsync", fsync)
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
    said = f"{tmp_path / 'b.png'}: No space left on device. Name another place with --output.\n"
    assert restored(capsys, *words) == Ended(5, "", said)


LARGE = """
import resource, torch
from common.training.determinism import generator
from papers.dncnn.eval import restore
from papers.dncnn.model import DnCNN
from papers.dncnn.train import Recipe
picture = torch.randint(256, (4000, 6000, 3), generator=generator(0, "large"), dtype=torch.uint8).numpy()
assert restore(DnCNN(3).state_dict(), Recipe(depth=3), picture, "cpu").shape == (4000, 6000, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in kilobytes, as Linux does")
def test_a_large_photograph_fits_into_4_gb():
    """With three layers: more of them take longer and no more memory, since two maps are alive at a time."""
    done = subprocess.run([sys.executable, "-c", LARGE], cwd=helpers.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) / 1e6 < 4
