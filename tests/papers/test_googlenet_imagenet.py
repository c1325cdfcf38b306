"""GoogLeNet on ImageNet: what the paper gives of a recipe, a loop that learns the same on one device and on several,
exact resumes, and the mean over crops and networks; on a few pictures of the stand-in."""

import socket
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.errors import UsageError
from common.claims.papers import load_paper
from common.data.colours import colours_of
from common.data.passports import LocatedData
from common.training import provenance
from common.training.determinism import generator
from common.training.processes import Processes
from common.training.records import Record
from common.training.run import Job, Run, run_job
from common.training.weights import load_weights, save_weights
from papers.googlenet import ensemble, imagenet
from papers.googlenet.crops import PROTOCOLS, cut_crops
from papers.googlenet.eval import evaluate
from papers.googlenet.imagenet import MEAN, VARIANTS, mistakes_on
from papers.googlenet.model import GoogLeNet, initialise
from papers.googlenet.sampling import patches_of, photometric
from papers.googlenet.train import learning_rate, metrics_of_curves, recipe, train
from tests.contract import helpers
from tests.contract.helpers import seed_folder, smoke, start
from tests.papers.googlenet import few, make_small

PAPER = load_paper("googlenet")
CODE = provenance.code(PAPER.name)
STAND_IN = LocatedData("imagenet", "stand-in", None, {})
BATCH, GROUP = 10, 5  # 30 pictures train: three batches an epoch
SMALL = {"batch_size": BATCH, "group": GROUP, "precision": "float32", "crops": (1, 10)}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    make_small(monkeypatch.setattr)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the whole runs lie: each is made once, and whoever asks for it again is given its record."""
    return tmp_path_factory.mktemp("runs")


def job(folder, variant="imagenet", seed=0, **changes) -> Job:
    short = replace(recipe(variant, "smoke"), **SMALL | changes)
    return Job(PAPER.name, variant, "smoke", seed, short, True, STAND_IN, "cpu", folder, "test", CODE)


def finished(folder, **how) -> Record:
    return run_job(job(folder, **how))[0]


def weights_of(folder, **how) -> dict[str, Tensor]:
    return load_weights(job(folder, **how).folder / finished(folder, **how).weights.file)


# ---- the recipe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_what_the_paper_gives_of_a_recipe(variant):
    """Sec. 6: "decreasing the learning rate by 4% every 8 epochs"; Sec. 7: seven networks."""
    full = VARIANTS[variant]
    assert (full.side, full.momentum, full.head_weight, full.crops) == (224, 0.9, 0.3, (1, 10, 144))
    differs = {"imagenet-ensemble": {"networks": 7}, "imagenet-torchvision": {"network": "torchvision"}}
    assert full == replace(VARIANTS["imagenet"], **differs.get(variant, {}))
    for epoch in range(full.epochs):
        assert learning_rate(full, epoch) == pytest.approx(full.learning_rate * 0.96 ** (epoch // 8), rel=1e-12)
    assert PAPER.variants[variant].dataset == "imagenet"


@pytest.mark.parametrize("variant", VARIANTS)
def test_shorter_presets_change_lengths_and_the_stand_in_sizes(variant):
    full, quick = VARIANTS[variant], recipe(variant, "quick")
    assert recipe(variant, "full") == full
    lengths = {"epochs": full.epochs, "networks": full.networks, "averaging": full.averaging}
    assert quick.epochs == 1 and replace(quick, **lengths) == full
    for preset, standin in (("smoke", True), ("full", True)):
        short = recipe(variant, preset, standin)
        assert (short.side, short.epochs, short.networks) == (80, 2, min(full.networks, 2))
        sizes = {name: getattr(full, name) for name in ("side", "batch_size", "group", "crops")}
        assert replace(short, **lengths, **sizes) == full


# ---- the loop -------------------------------------------------------------------------------------


def by_hand(work: Job) -> tuple[dict[str, Tensor], list[float]]:
    """The first epoch as one would write it down: the averaged weights, and the losses; the draws are the project's."""
    made, data = work.recipe, few(work.data)
    model = GoogLeNet(data.classes, side=made.side)
    initialise(model, generator(work.seed, "initial weights"), made.initial_weights)
    optimiser = torch.optim.SGD(model.parameters(), lr=made.learning_rate, momentum=0.9, weight_decay=0.0002)
    colours = colours_of(data.train.pictures, made.side, 0)
    mean = colours.mean[:, None, None]
    order = torch.randperm(len(data.train), generator=generator(work.seed, "order", 0))
    average, all_losses = {}, []
    for number, numbers in enumerate(order.split(made.group)):  # a batch is two groups
        patches = patches_of(numbers, generator(work.seed, "patches", 0, number))
        cut = [patch.cut(data.train.pictures[patch.number], made.side) for patch in patches]
        draw = generator(work.seed, "colours", 0, number)
        seen = photometric(torch.stack(cut).float(), made.distortion, draw)
        seen = seen + (0.1 * torch.randn(len(cut), 3, generator=draw) @ colours.axes)[:, :, None, None]
        outputs = model.train()(seen - mean, generator(work.seed, "dropout", 0, number))
        loss, *heads = (F.cross_entropy(logits, data.train.labels[numbers]) for logits in outputs)
        all_losses.append(loss.item())
        ((loss + 0.3 * sum(heads)) / 2).backward()
        if number % 2:
            optimiser.step()
            optimiser.zero_grad()
            share = made.averaging if average else 0.0
            now = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            average = {name: share * average.get(name, 0) + (1 - share) * tensor for name, tensor in now.items()}
    return average, all_losses


def test_the_loop_is_a_plain_one(tmp_path):
    """Up to rounding: the averaged weights without the heads, and the loss."""
    work = job(tmp_path, epochs=1, seed=3)
    record = run_job(work)[0]
    ours = load_weights(work.folder / record.weights.file)
    expected, losses = by_hand(work)
    assert set(ours) == {MEAN, *(f"0.{name}" for name in expected if not name.startswith("heads"))}
    for name in set(ours) - {MEAN}:
        torch.testing.assert_close(ours[name], expected[name.removeprefix("0.")], rtol=1e-3, atol=1e-4, msg=name)
    assert record.curves["loss"] == [pytest.approx(sum(losses) / len(losses), rel=1e-4)]
    assert metrics_of_curves(record.curves, work.recipe) == {} and record.curves["rate"] == [0.03]


def test_every_update_has_its_rate_and_the_papers_constants(tmp_path, updates):
    """Sec. 6; of all parameters. Here the rate falls after every epoch, of three batches, and the run is cut after it.
    The second network of an ensemble begins with the first rate."""
    how = {"variant": "imagenet-ensemble", "decay_epochs": 1}
    with helpers.killed_after(8):
        run_job(job(tmp_path, **how))
    assert finished(tmp_path, **how).curves["rate"] == pytest.approx(2 * [0.03, 0.03 * 0.96])
    assert [update["lr"] for update in updates] == pytest.approx(2 * ([0.03] * 3 + [0.03 * 0.96] * 3))
    constants = {"momentum": 0.9, "weight_decay": 0.0002, "dampening": 0, "nesterov": False}
    for update in updates:
        assert update | constants == update and update["tensors"] == len(list(GoogLeNet(10, side=80).parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["imagenet", "imagenet-torchvision"])
def test_two_processes_learn_the_very_bits_of_one(tmp_path, runs, variant):
    """A batch of two groups: one process adds up the gradients that two processes have one each of. The moments of
    batch normalization are those of the first process's group."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    fields = ["--batch-size", BATCH, "--group", GROUP, "--precision", "float32"]
    commands = [
        start(
            *smoke(tmp_path / "two", "--variant", variant, *fields, paper="googlenet"),
            log=tmp_path / str(rank),
            env=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            prepare=make_small,
        )
        for rank in (0, 1)
    ]
    alone = weights_of(runs, variant=variant)
    assert [command.end().code for command in commands] == [0, 0]
    together = load_weights(seed_folder(tmp_path / "two") / "weights.safetensors")
    assert set(alone) == set(together)
    unequal = {name.rpartition(".")[2] for name in alone if not torch.equal(alone[name], together[name])}
    normalised = variant == "imagenet-torchvision"
    assert unequal == ({"running_mean", "running_var", "num_batches_tracked"} if normalised else set())
    curves, expected = helpers.record(tmp_path / "two")["curves"], finished(runs, variant=variant).curves
    assert curves["loss"] == pytest.approx(expected["loss"], rel=1e-12)
    assert curves["train_error"] == expected["train_error"]
    assert normalised or curves["top1_error"] == expected["top1_error"]


def test_flowers_are_for_one_process(tmp_path):
    flowers = LocatedData("flowers", "stand-in", None, {})
    work = replace(job(tmp_path), recipe=recipe("flowers", "smoke"), data=flowers, processes=Processes(0, 0, 2))
    with pytest.raises(UsageError, match="--nproc: training on the flowers takes one device"):
        train(Run(work), work.recipe)


@pytest.mark.slow
def test_the_bits_do_not_depend_on_workers_that_decode(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(imagenet, "cores_to_decode", lambda device: 2)
    assert finished(tmp_path).weights.sha256 == finished(runs).weights.sha256


def test_batches_that_cannot_be_shared_out_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--batch-size 13: cannot be shared out evenly among 1 process with groups of"):
        finished(tmp_path, batch_size=13)
    with pytest.raises(UsageError, match="--batch-size 40: there are 30 pictures to train on"):
        finished(tmp_path, batch_size=40)


# ---- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "steps"), [("imagenet", 4), ("imagenet-ensemble", 8), ("imagenet-torchvision", 4)])
def test_every_variant_trains_resumes_and_evaluates(tmp_path, runs, variant, steps):
    """Of the ensemble the second network is interrupted."""
    whole = finished(runs, variant=variant)
    with helpers.killed_after(steps):
        run_job(job(tmp_path, variant=variant))
    resumed = finished(tmp_path, variant=variant)
    assert resumed.weights.sha256 == whole.weights.sha256
    assert (resumed.metrics, resumed.curves) == (whole.metrics, whole.curves)
    errors = {"top1_error", "top5_error"}
    assert {name: set(of) for name, of in whole.metrics.items()} == {"1-crop": errors, "10-crop": errors}
    networks = whole.recipe["networks"]
    assert whole.curves["network"] == [1, 1, 2, 2][: 2 * networks]


def test_networks_of_an_ensemble_begin_alike_and_go_their_own_ways(tmp_path, runs):
    """The first is the one of a run for itself; the second has another order, and had no velocity when it began."""
    together = weights_of(runs, variant="imagenet-ensemble")
    for name, tensor in weights_of(runs).items():
        assert torch.equal(together[name], tensor), name
    assert not torch.equal(together["0.linear.weight"], together["1.linear.weight"])
    still = weights_of(tmp_path, variant="imagenet-ensemble", learning_rate=1e-30, epochs=1)
    assert torch.equal(still["0.linear.weight"], still["1.linear.weight"])


def test_another_seed_learns_something_else(runs):
    assert finished(runs, seed=1).weights.sha256 != finished(runs).weights.sha256


# ---- evaluation -----------------------------------------------------------------------------------


def test_the_weights_that_a_run_leaves_give_its_numbers_again(runs):
    work, record = job(runs), finished(runs)
    assert evaluate(weights_of(runs), work.recipe, STAND_IN, "cpu").metrics == record.metrics
    with pytest.raises(UsageError, match="weights of another model"):
        evaluate(weights_of(runs), replace(work.recipe, networks=2), STAND_IN, "cpu")
    without = {name: tensor for name, tensor in weights_of(runs).items() if name != MEAN}
    with pytest.raises(UsageError, match="lack 'mean_colour'"):
        evaluate(without, work.recipe, STAND_IN, "cpu")


class Probe(nn.Sequential):
    """Ten logits from what is where in a picture, in no time."""

    def __init__(self, seed: int):
        super().__init__(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
        self[2].weight.data.copy_(torch.randn(10, 48, generator=generator(seed, "probe")) / 100)


@pytest.fixture
def networks() -> list[nn.Module]:
    return [Probe(0), Probe(1)]


@pytest.mark.parametrize("crops", PROTOCOLS)
def test_errors_are_of_the_mean_over_crops_and_networks(networks, crops):
    """As one would count them, one picture after the other."""
    test, mean, first, five = few(STAND_IN).test, torch.full((3, 1, 1), 100.0), 0, 0
    for picture, label in zip(test.pictures, test.labels.tolist(), strict=True):
        seen = cut_crops(picture, 80, PROTOCOLS[crops]).float() - mean
        with torch.inference_mode():
            said = sum(network(seen).double().softmax(1).mean(0) for network in networks)
        guesses = said.argsort(descending=True).tolist()
        first, five = first + (guesses[0] != label), five + (label not in guesses[:5])
    assert mistakes_on(networks, test, job("").recipe, mean, crops).tolist() == [first, five]
    assert 10 > first > five > 0


def test_processes_count_every_picture_once_among_them(networks):
    made, pictures, mean = job("").recipe, few(STAND_IN).test, torch.full((3, 1, 1), 100.0)
    whole = mistakes_on(networks, pictures, made, mean, 1)
    shares = [Processes(rank, rank, 3).share for rank in range(3)]
    parts = [mistakes_on(networks, pictures, made, mean, 1, share) for share in shares]
    assert torch.equal(sum(parts), whole) and whole[0] >= whole[1] > 0


def test_weights_files_are_joined_into_an_ensemble(tmp_path, runs):
    seeds = [job(runs, seed=seed).folder / finished(runs, seed=seed).weights.file for seed in (0, 1)]
    ensemble.join(tmp_path / "joined.safetensors", seeds)
    joined = load_weights(tmp_path / "joined.safetensors")
    for seed in (0, 1):
        alone = weights_of(runs, seed=seed)
        assert torch.equal(joined[f"{seed}.linear.weight"], alone["0.linear.weight"])
        assert torch.equal(joined[MEAN], alone[MEAN])
    of_two = replace(job(runs).recipe, networks=2)
    assert set(evaluate(joined, of_two, STAND_IN, "cpu").metrics) == {"1-crop", "10-crop"}
    ensemble.join(tmp_path / "twice.safetensors", [seeds[0], seeds[0]])
    twice = evaluate(load_weights(tmp_path / "twice.safetensors"), of_two, STAND_IN, "cpu")
    assert twice.metrics == finished(runs).metrics


def test_files_that_do_not_belong_together_are_not_joined(tmp_path, runs):
    seed, joined = job(runs).folder / finished(runs).weights.file, tmp_path / "joined.safetensors"
    save_weights({MEAN: torch.zeros(3, 1, 1)}, tmp_path / "other.safetensors", "googlenet/imagenet/seed-0")
    with pytest.raises(UsageError, match="other.safetensors was trained with another mean colour than"):
        ensemble.join(joined, [seed, tmp_path / "other.safetensors"])
    save_weights({MEAN: torch.zeros(3, 1, 1)}, tmp_path / "other.safetensors", "googlenet/flowers/seed-0")
    with pytest.raises(UsageError, match="other.safetensors does not say that it is of googlenet / imagenet"):
        ensemble.join(joined, [tmp_path / "other.safetensors"])
    assert not joined.exists()
