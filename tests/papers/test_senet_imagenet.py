"""SENet on ImageNet: the paper's recipe, its crops, a loop that learns the same on one device and on several, exact
resumes."""

import math
import socket
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from common.base.errors import UsageError
from common.claims.papers import load_paper
from common.data.colours import colours_of
from common.data.decoding import centre, one_crop
from common.data.imagenet import load
from common.data.passports import LocatedData
from common.training import provenance
from common.training.determinism import generator
from common.training.processes import Processes
from common.training.records import Record
from common.training.run import Job, run_job
from common.training.weights import load_weights
from papers.senet import imagenet
from papers.senet import model as networks
from papers.senet.eval import evaluate, predictor
from papers.senet.imagenet import MEAN, RELEASED, VARIANTS, ImageNetRecipe, learning_rate, mistakes_on
from papers.senet.model import initialise
from papers.senet.patches import Patch, draw_patches
from papers.senet.train import recipe
from tests.contract import helpers
from tests.contract.helpers import seed_folder, smoke, start

PAPER = load_paper("senet")
CODE = provenance.code(PAPER.name)
STAND_IN = LocatedData("imagenet", "stand-in", None, {})
SMALL = {"side": 32, "test_scale": 37, "batch_size": 60, "group": 30}  # two iterations are an epoch
NETWORK = "imagenet-se-resnet50"
PAIRS = [(name, name.replace("-se-", "-")) for name in VARIANTS if "-se-" in name and name not in RELEASED]


def job(folder, variant=NETWORK, seed=0, **changes) -> Job:
    short = replace(recipe(variant, "smoke"), **SMALL | changes)
    return Job(PAPER.name, variant, "smoke", seed, short, True, STAND_IN, "cpu", folder, "test", CODE)


def finished(folder, **how) -> Record:
    return run_job(job(folder, **how))[0]


@pytest.fixture
def narrow(monkeypatch) -> None:
    """One block in each stage, and an eighth of its maps."""
    monkeypatch.setitem(networks.IMAGENET_BLOCKS, 50, (1, 1, 1, 1))
    monkeypatch.setattr(networks, "IMAGENET_MAPS", (32, 64, 128, 256))


# ---- the recipe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_the_constants_of_section_5_1(variant):
    full, name = recipe(variant, "full"), variant.removeprefix("imagenet-").removeprefix("se-")
    assert full.excitation_bias == full.caffe_pool == variant.endswith("-released")
    name = name.removesuffix("-released")
    assert full.network == ("imagenet-resnext" if name.startswith("resnext") else "imagenet")
    assert full.depth == int(name.removeprefix("resnet").removeprefix("resnext"))
    assert full.reduction == (16 if "-se-" in variant else None)
    assert (full.epochs, full.batch_size, full.momentum) == (100, 1024, 0.9)
    assert (full.side, full.test_scale) == (224, 256)
    assert PAPER.variants[variant].dataset == "imagenet"


def test_the_rate_of_every_epoch_is_the_papers():
    """Sec. 5.1: 0.6, a tenth of it every 30 epochs, 100 epochs."""
    rates = [learning_rate(VARIANTS[NETWORK], epoch) for epoch in range(100)]
    assert rates == [0.6] * 30 + [0.6 / 10] * 30 + [0.6 / 100] * 30 + [0.6 / 1000] * 10


@pytest.mark.parametrize(("with_blocks", "plain"), PAIRS)
def test_a_pair_differs_in_its_blocks_alone(with_blocks, plain):
    assert VARIANTS[plain] == replace(VARIANTS[with_blocks], reduction=None)


def test_shorter_presets_change_the_length_and_the_stand_in_the_size():
    full = VARIANTS["imagenet-se-resnet101"]
    assert recipe("imagenet-se-resnet101", "quick") == replace(full, epochs=1)
    for preset, standin, depth in (("smoke", False, 50), ("full", True, 101)):
        short = recipe("imagenet-se-resnet101", preset, standin)
        assert (short.depth, short.network, short.reduction, short.epochs) == (depth, full.network, 16, 2)
        assert short.side / short.test_scale == full.side / full.test_scale


# ---- the crops ------------------------------------------------------------------------------------


def test_patches_are_drawn_evenly_and_from_their_generator_alone():
    drawn = draw_patches(torch.arange(2000), generator(0, "patches"))
    assert [patch.number for patch in drawn] == list(range(2000))
    areas, aspects = (torch.tensor([getattr(p, name) for p in drawn]) for name in ("areas", "aspects"))
    assert 0.08 <= areas.min() < 0.081 and 0.999 < areas.max() <= 1
    assert areas.mean() == pytest.approx(0.54, abs=0.01)
    assert 3 / 4 <= aspects.min() < 0.751 and 1.333 < aspects.max() <= 4 / 3
    assert aspects.log().mean() == pytest.approx(0, abs=0.01)
    places = torch.tensor([[patch.row, patch.column] for patch in drawn])
    assert places.min() >= 0 and places.max() < 1 and places.mean() == pytest.approx(0.5, abs=0.02)
    assert sum(patch.mirrored for patch in drawn) == pytest.approx(1000, abs=100)
    assert draw_patches(torch.arange(2000), generator(0, "patches")) == drawn


def test_a_patch_is_a_resized_rectangle_of_the_picture():
    picture = torch.randint(256, (3, 60, 90), generator=generator(0, "picture"), dtype=torch.uint8)
    area, aspect = 0.25, 4 / 3  # 1350 pixels: 32 rows of 42 columns
    patch = Patch(0, [area], [aspect], row=0.5, column=0.999, mirrored=False)
    rows, columns = round(math.sqrt(1350 / aspect)), round(math.sqrt(1350 * aspect))
    assert (rows, columns) == (32, 42)
    part = picture[None, :, 14 : 14 + 32, 48:90]
    expected = F.interpolate(part, (24, 24), mode="bilinear", antialias=True)[0]
    assert torch.equal(patch.cut(picture, 24), expected)
    assert torch.equal(patch._replace(mirrored=True).cut(picture, 24), expected.flip(2))


def test_the_first_rectangle_that_fits_is_taken_else_the_largest_in_the_middle():
    picture = torch.arange(100, dtype=torch.uint8).expand(3, 10, 100)  # a column is as bright as its number
    fits = Patch(0, [1.0, 0.09], [1.0, 1.0], row=0.0, column=0.0, mirrored=False)  # 32 x 32, 9 x 9
    assert torch.equal(fits.cut(picture, 9), picture[:, :9, :9])
    middle = Patch(0, [1.0, 0.9], [1.0, 1.3], row=0.0, column=0.0, mirrored=False)  # ten rows of 13
    expected = F.interpolate(picture[None, :, :, 43:56], (9, 9), mode="bilinear", antialias=True)[0]
    assert torch.equal(middle.cut(picture, 9), expected)


# ---- the loop -------------------------------------------------------------------------------------


def by_hand(work: Job) -> tuple[torch.nn.Module, list[float]]:
    """The first epoch as one would write it down, group by group; the draws are the project's."""
    made, data = work.recipe, load(work.data)
    model = imagenet.build_model(made, data.classes)
    initialise(model, generator(work.seed, "initial weights"))
    optimiser = torch.optim.SGD(model.parameters(), lr=made.learning_rate, momentum=0.9, weight_decay=0.0001)
    mean = colours_of(data.train.pictures, made.test_scale, 0).mean[:, None, None]
    order, losses = torch.randperm(len(data.train), generator=generator(work.seed, "order", 0)), []
    for index in range(len(order) // made.batch_size):
        batch = order[index * made.batch_size : (index + 1) * made.batch_size]
        patches = draw_patches(batch, generator(work.seed, "patches", 0, index))
        seen = torch.stack([patch.cut(data.train.pictures[patch.number], made.side) - mean for patch in patches])
        groups = zip(seen.split(made.group), data.train.labels[batch].split(made.group), strict=True)
        loss = torch.stack([F.cross_entropy(model(part), label) for part, label in groups]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return model, losses


def test_the_loop_is_a_plain_one(tmp_path, narrow):
    """Up to the order in which the gradients of the groups are added up. Of 120 pictures two batches are filled."""
    size = {"batch_size": 50, "group": 25}
    work = job(tmp_path, seed=3, epochs=1, precision="float32", learning_rate=0.001, **size)  # rounding grows at 0.6
    record = run_job(work)[0]
    model, losses = by_hand(work)
    ours = load_weights(work.folder / record.weights.file)
    assert set(ours) == {*model.state_dict(), MEAN}
    for name, theirs in model.state_dict().items():
        torch.testing.assert_close(ours[name], theirs, rtol=1e-2, atol=1e-3, msg=name)
    assert record.curves["loss"] == [pytest.approx(sum(losses) / 2, rel=1e-4)]
    assert record.curves["rate"] == [0.001]


def test_every_update_has_its_rate_and_the_papers_constants(tmp_path, narrow, updates):
    """Sec. 5.1; of all parameters. Here the rate falls after an epoch of two batches, and the run is cut after that."""
    with helpers.killed_after(3):
        run_job(job(tmp_path))
    network = imagenet.build_model(job(tmp_path).recipe, 10)
    assert finished(tmp_path).curves["rate"] == pytest.approx([0.6, 0.06])
    assert [update["lr"] for update in updates] == pytest.approx([0.6] * 2 + [0.06] * 2)
    constants = {"momentum": 0.9, "weight_decay": 0.0001, "dampening": 0, "nesterov": False}
    for update in updates:
        assert update | constants == update and update["tensors"] == len(list(network.parameters()))


@pytest.mark.slow
def test_two_processes_learn_the_very_bits_of_one(tmp_path):
    """A batch of two groups: one process adds up the gradients that two processes have one each of. The moments that
    a test uses are those of the first process's groups."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    words = ["--variant", NETWORK, "--epochs", 1, "--precision", "float32"]
    commands = [
        start(
            *smoke(tmp_path / "two", *words, paper="senet"),
            log=tmp_path / str(rank),
            env=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    changes = {name: getattr(recipe(NETWORK, "smoke"), name) for name in SMALL}
    work = job(tmp_path, precision="float32", epochs=1, **changes)
    record = run_job(work)[0]
    assert [command.end().code for command in commands] == [0, 0]
    alone = load_weights(work.folder / record.weights.file)
    together = load_weights(seed_folder(tmp_path / "two") / "weights.safetensors")
    moments = [name for name in alone if "running" in name or "num_batches" in name]
    assert all(torch.equal(alone[name], together[name]) for name in alone if name not in moments) and moments
    curves = helpers.record(tmp_path / "two")["curves"]
    assert curves["train_error"] == record.curves["train_error"]
    assert curves["loss"] == pytest.approx(record.curves["loss"], rel=1e-12)


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(UsageError, match="--side 300: larger than the 256 pixels of --test-scale"):
        ImageNetRecipe(side=300)


def test_batches_that_cannot_be_shared_out_are_refused(tmp_path):
    with pytest.raises(
        UsageError, match="--batch-size 40: cannot be shared out evenly among 1 process with groups of 30"
    ):
        finished(tmp_path, batch_size=40)
    with pytest.raises(UsageError, match="--batch-size 150: there are 120 pictures to train on"):
        finished(tmp_path, batch_size=150)


# ---- runs -----------------------------------------------------------------------------------------


def trained_and_resumed(folder, variant: str = NETWORK) -> Record:
    """A whole run, after it was compared with one that was killed in its second epoch."""
    whole = finished(folder / "whole", variant=variant)
    with helpers.killed_after(3):
        run_job(job(folder / "killed", variant=variant))
    resumed = finished(folder / "killed", variant=variant)
    assert resumed.weights.sha256 == whole.weights.sha256
    assert (resumed.metrics, resumed.curves) == (whole.metrics, whole.curves)
    assert whole.curves["rate"] == [0.6, 0.6 / 10] and len(whole.curves["loss"]) == 2
    assert {name: set(values) for name, values in whole.metrics.items()} == {
        "single-crop": {"top1_error", "top5_error"}
    }
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_resumes_and_evaluates(tmp_path, variant):
    """Its weights take a hundred megabytes."""
    trained_and_resumed(tmp_path, variant)


def test_a_narrow_network_trains_resumes_and_evaluates(tmp_path, narrow):
    record, work = trained_and_resumed(tmp_path), job(tmp_path / "whole")
    weights = load_weights(work.folder / record.weights.file)
    assert evaluate(weights, work.recipe, work.data, "cpu").metrics == record.metrics
    with pytest.raises(UsageError, match="weights of another model"):
        evaluate(weights, replace(work.recipe, reduction=None), work.data, "cpu")
    with pytest.raises(UsageError, match="lack 'mean_colour'"):
        evaluate({name: w for name, w in weights.items() if name != MEAN}, work.recipe, work.data, "cpu")
    ready = predictor(weights, work.recipe, lambda: pytest.fail("no training data is needed"))
    assert first_wrong(ready.eval(), work.recipe) == record.metrics["single-crop"]["top1_error"] * 40 / 100


def test_the_bits_do_not_depend_on_the_number_of_workers(tmp_path, narrow, monkeypatch):
    alone = finished(tmp_path / "alone", epochs=1)
    monkeypatch.setattr(imagenet, "cores_to_decode", lambda device: 2)
    assert finished(tmp_path / "two", epochs=1).weights.sha256 == alone.weights.sha256


# ---- evaluation -----------------------------------------------------------------------------------


def first_wrong(says, made) -> int:
    """How many test pictures of the stand-in are not what is said of the middle of them first."""
    test = load(STAND_IN).test
    squares = torch.stack([centre(0, made.test_scale).cut(picture, made.test_scale) for picture in list(test.pictures)])
    with torch.no_grad():
        return int((says(one_crop(squares, made.side)[:, 0]).argmax(1) != test.labels).sum())


def test_processes_count_every_picture_once_among_them(monkeypatch, narrow):
    monkeypatch.setattr(imagenet, "AT_ONCE", 7)  # the last part is a short one
    made, mean, pictures = job("").recipe, torch.full((3,), 100.0), load(STAND_IN).test
    model = imagenet.build_model(made, 10)
    initialise(model, generator(0, "test"))
    whole = mistakes_on(model, pictures, made, mean)
    parts = [mistakes_on(model, pictures, made, mean, Processes(rank, rank, 3).share) for rank in range(3)]
    assert torch.equal(sum(parts), whole) and whole[0] >= whole[1] > 0
    assert whole[0] == first_wrong(lambda pixels: model.eval()(pixels - mean[:, None, None]), made)
