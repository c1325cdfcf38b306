"""ResNet on ImageNet: the paper's recipe, a loop that learns the same on one device and on several, exact resumes."""

import socket
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.base.errors import UsageError
from common.claims.papers import load_paper
from common.data.decoding import centre, one_crop
from common.data.imagenet import Part, load
from common.data.jitter import as_input, draw_views
from common.data.passports import LocatedData
from common.training import provenance
from common.training.determinism import generator
from common.training.processes import Processes
from common.training.records import Record
from common.training.run import Job, run_job
from common.training.weights import load_weights
from papers.resnet import imagenet
from papers.resnet.eval import evaluate
from papers.resnet.imagenet import MEAN, VARIANTS, ImageNetRecipe, drops, learning_rate, mistakes_at_scales, mistakes_on
from papers.resnet.model import initialise
from papers.resnet.train import recipe
from tests.contract import helpers
from tests.contract.helpers import seed_folder, smoke, start
from tests.papers.variants import the_others_slow

PAPER = load_paper("resnet")
CODE = provenance.code(PAPER.name)
STAND_IN = {name: LocatedData(name, "stand-in", None, {}) for name in ("imagenet", "flowers")}
# Seven iterations are an epoch.
SMALL = {"side": 32, "scales": (37, 69), "test_scale": 37, "test_scales": (32, 40), "iterations": 9}
NETWORK = "imagenet-resnet18-A"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the whole runs lie: each is made once, and whoever asks for it again is given its record."""
    return tmp_path_factory.mktemp("runs")


def job(folder, variant=NETWORK, seed=0, **changes) -> Job:
    short = replace(recipe(variant, "smoke"), **SMALL | changes)
    data = STAND_IN[PAPER.variants[variant].dataset]
    return Job(PAPER.name, variant, "smoke", seed, short, True, data, "cpu", folder, "test", CODE)


def finished(folder, **how) -> Record:
    return run_job(job(folder, **how))[0]


# ---- the recipe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("imagenet")])
def test_every_variant_has_the_constants_of_section_3_4(variant):
    full, name = recipe(variant, "full"), variant.removeprefix("imagenet-").removesuffix("-v1.5")
    network, _, option = name.partition("-")
    assert full.shortcuts == ("none" if network.startswith("plain") else option or "B")
    assert full.depth == int(network.removeprefix("resnet").removeprefix("plain"))
    assert full.stride_at == ("3x3" if variant.endswith("v1.5") else "1x1")
    assert (full.batch_size, full.learning_rate, full.momentum, full.weight_decay) == (256, 0.1, 0.9, 0.0001)
    assert (full.iterations, full.scales, full.side) == (600_000, (256, 480), 224)
    assert (full.test_scale, full.test_scales) == (256, (224, 256, 384, 480, 640))
    assert PAPER.variants[variant].dataset == "imagenet"


def test_shorter_presets_change_the_length_and_the_stand_in_the_size():
    full = VARIANTS["imagenet-resnet101"]
    assert replace(recipe("imagenet-resnet101", "quick"), iterations=full.iterations) == full
    for preset, standin, depth in (("smoke", False, 50), ("full", True, 101)):
        short = recipe("imagenet-resnet101", preset, standin)
        assert (short.depth, short.stride_at, short.shortcuts) == (depth, full.stride_at, full.shortcuts)
        assert short.iterations <= 10 and short.side / short.scales[0] == full.side / full.scales[0]
        assert [4 * scale for scale in short.test_scales] == list(full.test_scales)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([], 0),
        ([90, 80, 70, 60, 50, 40, 30], 0),  # it goes on getting better
        ([90, 80, 80, 80], 0),  # two epochs without a better error are no plateau yet
        ([90, 80, 80, 80, 80], 1),
        ([90, 80, 79.9, 79.8, 79.6], 1),  # better, but by less than 0.5
        ([90, 80, 79.9, 79.8, 79.5], 0),
        ([90, 80, 80, 80, 80, 70, 70, 70], 1),  # the first epoch at a rate is no plateau
        ([90, 80, 80, 80, 80, 70, 70, 70, 70], 2),
        ([50] * 40, 3),  # not more often than that
    ],
)
def test_the_rate_becomes_a_tenth_when_the_error_plateaus(errors, expected):
    """Sec. 3.4: 'the learning rate starts from 0.1 and is divided by 10 when the error plateaus'."""
    plateau = ImageNetRecipe(patience=3, improvement=0.5)
    assert drops(errors, plateau) == expected
    assert learning_rate(plateau, errors) == 0.1 / 10**expected


# ---- the loop -------------------------------------------------------------------------------------


def by_hand(work: Job) -> tuple[torch.nn.Module, list[float]]:
    """The first epoch as one would write it down, group by group; the draws are the project's."""
    made, data = work.recipe, load(work.data)
    model = imagenet.build_model(made, data.classes)
    initialise(model, generator(work.seed, "initial weights"))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0001)
    colours = imagenet.colours_of(data.train.pictures, made.test_scale, 0)
    order, losses = torch.randperm(len(data.train), generator=generator(work.seed, "order", 0)), []
    for index in range(made.iterations):
        batch = order[index * made.batch_size : (index + 1) * made.batch_size]
        views = draw_views(made.batch_size, made.scales, generator(work.seed, "views", 0, index))
        cuts = zip(batch.tolist(), views.crops(batch), strict=True)
        pixels = torch.stack([crop.cut(data.train.pictures[number], made.side) for number, crop in cuts])
        seen, labels = as_input(pixels, colours, views), data.train.labels[batch]
        groups = zip(seen.split(made.group), labels.split(made.group), strict=True)
        loss = torch.stack([F.cross_entropy(model(part), label) for part, label in groups]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.usefixtures("direct_convolutions")
def test_the_loop_is_a_plain_one(tmp_path):
    """Up to the order in which the gradients of the groups are added up."""
    work = job(tmp_path, iterations=3, precision="float32")
    record = run_job(work)[0]
    model, losses = by_hand(work)
    ours = load_weights(work.folder / record.weights.file)
    assert set(ours) == {*model.state_dict(), MEAN}
    for name, theirs in model.state_dict().items():
        torch.testing.assert_close(ours[name], theirs, rtol=1e-2, atol=1e-3, msg=name)
    assert record.curves["loss"] == [pytest.approx(sum(losses) / 3, rel=1e-4)]
    assert (record.curves["rate"], record.curves["iteration"]) == ([0.1], [3])


def test_every_update_has_its_rate_and_the_papers_constants(tmp_path, updates):
    """Sec. 3.4; of all parameters. Here every second epoch is a plateau, and the run is cut after the first drop."""
    how = {"iterations": 21, "patience": 1, "improvement": 100}
    with helpers.killed_after(16):
        run_job(job(tmp_path, **how))
    network = imagenet.build_model(job(tmp_path, **how).recipe, 10)
    assert finished(tmp_path, **how).curves["rate"] == [0.1, 0.1, 0.01]
    assert [update["lr"] for update in updates] == [0.1] * 14 + [0.01] * 2 + [0.01] * 5
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
    words = ["--variant", NETWORK, "--iterations", 3, "--precision", "float32"]
    commands = [
        start(
            *smoke(tmp_path / "two", *words, paper="resnet"),
            log=tmp_path / str(rank),
            env=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    changes = {name: getattr(recipe(NETWORK, "smoke"), name) for name in SMALL}
    work = job(tmp_path, precision="float32", **changes | {"iterations": 3})
    record = run_job(work)[0]
    assert [command.end().code for command in commands] == [0, 0]
    alone = load_weights(work.folder / record.weights.file)
    together = load_weights(seed_folder(tmp_path / "two") / "weights.safetensors")
    moments = [name for name in alone if "running" in name or "num_batches" in name]
    assert all(torch.equal(alone[name], together[name]) for name in alone if name not in moments) and moments
    curves = helpers.record(tmp_path / "two")["curves"]
    assert curves["train_error"] == record.curves["train_error"]
    assert curves["loss"] == pytest.approx(record.curves["loss"], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_bits_do_not_depend_on_the_number_of_workers(tmp_path, runs, monkeypatch, workers):
    monkeypatch.setattr(imagenet, "cores_to_decode", lambda device: workers)
    assert finished(tmp_path).weights.sha256 == finished(runs).weights.sha256


@pytest.mark.parametrize("option", ["test-scale", "scales"])
def test_a_crop_larger_than_the_picture_is_refused(option):
    smaller = {"test-scale": {"test_scale": 200}, "scales": {"scales": (200, 480)}}[option]
    with pytest.raises(UsageError, match=f"--side 224: larger than the 200 pixels of --{option}"):
        ImageNetRecipe(**smaller)


def test_batches_that_cannot_be_shared_out_are_refused(tmp_path, monkeypatch):
    with pytest.raises(
        UsageError, match="--batch-size 20: cannot be shared out evenly among 1 process with groups of 8"
    ):
        finished(tmp_path, batch_size=20)
    with pytest.raises(UsageError, match="--batch-size 128: there are 120 pictures to train on"):
        finished(tmp_path, batch_size=128)


# ---- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", the_others_slow(VARIANTS, NETWORK))
def test_every_variant_trains_resumes_and_evaluates(tmp_path, runs, variant):
    whole = finished(runs, variant=variant)
    with helpers.killed_after(8):  # in the second epoch
        run_job(job(tmp_path, variant=variant))
    resumed = finished(tmp_path, variant=variant)
    assert resumed.weights.sha256 == whole.weights.sha256
    assert (resumed.metrics, resumed.curves) == (whole.metrics, whole.curves)
    errors = {"top1_error"} if variant.startswith("flowers") else {"top1_error", "top5_error"}
    assert {protocol: set(values) for protocol, values in whole.metrics.items()} == {
        "1-crop": errors,
        "10-crop": errors,
        "multi-scale": errors,
    }
    assert whole.curves["iteration"][-1] == 9 and len(whole.curves["loss"]) == 2


def test_another_seed_learns_something_else(runs):
    assert finished(runs, seed=1).weights.sha256 != finished(runs).weights.sha256


# ---- evaluation -----------------------------------------------------------------------------------


def test_the_weights_that_a_run_leaves_give_its_numbers_again(runs):
    work, record = job(runs), finished(runs)
    weights = load_weights(work.folder / record.weights.file)
    assert evaluate(weights, work.recipe, work.data, "cpu").metrics == record.metrics
    with pytest.raises(UsageError, match="weights of another model"):
        evaluate(weights, replace(work.recipe, depth=34), work.data, "cpu")
    with pytest.raises(UsageError, match="lack 'mean_colour'"):
        evaluate({name: w for name, w in weights.items() if name != MEAN}, work.recipe, work.data, "cpu")


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    network = imagenet.build_model(job("").recipe, 10)
    initialise(network, generator(0, "test"))
    return network


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.setattr(imagenet, "AT_ONCE", 7)  # the last part is a short one
    return load(STAND_IN["imagenet"]).test


def test_processes_count_every_picture_once_among_them(model, pictures):
    made, mean = job("").recipe, torch.full((3,), 100.0)
    (whole,) = mistakes_on(model, pictures, made, mean, ["10-crop"]).values()
    shares = [Processes(rank, rank, 3).share for rank in range(3)]
    parts = [mistakes_on(model, pictures, made, mean, ["10-crop"], share)["10-crop"] for share in shares]
    assert torch.equal(sum(parts), whole) and whole[0] >= whole[1] > 0


def test_errors_are_those_of_the_first_guess_and_of_five(model, pictures):
    made, mean = job("").recipe, torch.full((3,), 100.0)
    (counted,) = mistakes_on(model, pictures, made, mean, ["1-crop"]).values()
    squares = torch.stack([centre(0, made.test_scale).cut(p, made.test_scale) for p in list(pictures.pictures)])

    def guesses(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return model.eval()(inputs).argsort(1, descending=True)

    said = guesses(one_crop(squares, made.side)[:, 0].float() - 100)
    first, five = 0, 0
    for guess, label in zip(said.tolist(), pictures.labels.tolist(), strict=True):
        first += guess[0] != label
        five += label not in guess[:5]
    assert counted.tolist() == [first, five]


# ---- whole pictures at several scales ---------------------------------------------------------------


def of_squares(side: int, count: int = 9) -> Part:
    """Pictures of noise."""
    draw = generator(0, "squares")
    pictures = torch.randint(256, (count, 3, side, side), generator=draw, dtype=torch.uint8)
    return Part([str(n) for n in range(count)], torch.randint(10, (count,), generator=draw), list(pictures))


def heard(monkeypatch) -> list[Tensor]:
    """What is counted: the scores of each part."""
    said, honest = [], imagenet.mistakes
    monkeypatch.setattr(imagenet, "mistakes", lambda scores, labels: said.append(scores) or honest(scores, labels))
    return said


def test_a_square_of_224_at_that_scale_is_the_one_crop(model, monkeypatch):
    made, part = replace(VARIANTS[NETWORK], test_scale=224, test_scales=(224,)), of_squares(224, 2)
    said = heard(monkeypatch)
    one = mistakes_on(model, part, made, torch.full((3,), 100.0), ["1-crop"])["1-crop"]
    whole = mistakes_at_scales(model, part, made, torch.full((3,), 100.0))
    assert torch.equal(whole, one) and torch.equal(*said)


def class_map(model: torch.nn.Module, inputs: Tensor) -> Tensor:
    """What the last layer says at each position, (N, classes, h, w): as a convolution of 1x1, as the paper puts it."""
    maps = []
    with model.conv5_x.register_forward_hook(lambda layer, given, made: maps.append(made)), torch.no_grad():
        model.eval()(inputs)
    return F.conv2d(maps[0], model.fc.weight[:, :, None, None], model.fc.bias)


def test_a_larger_picture_has_the_mean_of_its_class_map(model, pictures, monkeypatch):
    """And each of them the mean softmax of the scales, whatever its shape, in its own place."""
    made, said = replace(job("").recipe, test_scales=(32, 80)), heard(monkeypatch)
    some = [pictures.pictures[number] for number in range(0, 40, 4)]
    assert len({picture.shape for picture in some}) > 3
    mistakes_at_scales(model, Part(pictures.names[::4], pictures.labels[::4], some), made, torch.full((3,), 100.0))
    assert [len(part) for part in said] == [7, 3]
    for picture, scores in zip(some, torch.cat(said), strict=True):
        expected = 0
        for scale in made.test_scales:
            factor = scale / min(picture.shape[1:])
            size = [round(length * factor) for length in picture.shape[1:]]
            resized = F.interpolate(picture[None], size, mode="bilinear", antialias=True)
            positions = class_map(model, resized.float() - 100)
            assert positions.shape[2:] == tuple(-(-length // 32) for length in size)
            expected = expected + positions.mean((2, 3)).double().softmax(1)[0]
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)


def test_large_pictures_are_seen_a_few_at_a_time(model, monkeypatch):
    """The memory that a test takes does not grow with them."""
    seen, made = [], replace(job("").recipe, test_scales=(32, 64, 96))
    monkeypatch.setattr(imagenet, "AT_ONCE", 6)
    with model.register_forward_pre_hook(lambda layer, given: seen.append(tuple(given[0].shape))):
        mistakes_at_scales(model, of_squares(40), made, torch.zeros(3))
    of_six, of_three = [(6, 3, 32, 32)], [(3, 3, 32, 32)]
    assert seen == [
        *of_six, *[(1, 3, 64, 64)] * 6, *[(1, 3, 96, 96)] * 6,
        *of_three, *[(1, 3, 64, 64)] * 3, *[(1, 3, 96, 96)] * 3,
    ]  # fmt: skip


def test_every_picture_counts_once_at_all_scales(model, pictures, monkeypatch):
    labels = pictures.labels
    monkeypatch.setattr(imagenet, "mistakes", lambda scores, given: torch.tensor([len(scores), int(given.sum())]))
    counted = mistakes_at_scales(model, pictures, replace(job("").recipe, test_scales=(32,)), torch.zeros(3))
    assert counted.tolist() == [len(labels), labels.sum().item()]
