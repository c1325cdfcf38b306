"""ResNet on several processes: the same bits again and again, and what one process would have learnt."""

import os
import signal
import socket
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.training.determinism import generator
from common.training.weights import load_weights
from papers.resnet import data, eval, train
from papers.resnet.model import initialise
from tests.contract.helpers import (
    assert_told,
    bits,
    checkpoints,
    processes_of,
    record,
    seed_folder,
    smoke,
    start,
    wait_for,
    without_standin,
)
from tests.papers.cifar import STAND_IN

ITERATIONS, BATCH = 5, 127  # an odd number: one process has a picture more


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found as Linux lists them")
@pytest.mark.parametrize("variant", ["resnet20", "imagenet-resnet18-A"])
def test_stopped_and_with_a_process_killed_two_end_with_the_same_bits(tmp_path, variant):
    words = ["--variant", variant, "--nproc", 2, "--iterations", 90, "--batch-size", 16]

    def begin(runs="runs"):
        return start(*smoke(tmp_path / runs, *words, paper="resnet"), log=tmp_path / "log")

    def wait_until_it_trains(command):
        wait_for(lambda: list(tmp_path.glob("runs/*/*/*/seed-0/curves.csv")), command)

    assert begin("whole").end().code == 0
    assert record(tmp_path / "whole")["environment"]["processes"] == 2

    command = begin()
    wait_until_it_trains(command)
    command.send(signal.SIGTERM)
    said = "SIGTERM: seed 0 is saved; the same command goes on from here."
    assert_told(without_standin(command.end()), 143, said)
    assert checkpoints(tmp_path / "runs")

    (seed_folder(tmp_path / "runs") / "curves.csv").unlink()
    command = begin()
    wait_until_it_trains(command)
    os.kill(processes_of(command)[-1], signal.SIGKILL)
    said = "was killed (signal 9); the same command goes on from what was last saved."
    ended = without_standin(command.end())
    assert "resuming seed 0 at" in ended.err
    assert_told(ended, 5, said)

    assert begin().end().code == 0
    assert bits(tmp_path / "runs") == bits(tmp_path / "whole")
    assert record(tmp_path / "runs")["curves"] == record(tmp_path / "whole")["curves"]
    assert record(tmp_path / "runs")["recipe"]["iterations"] == 90


def exact_inputs(images: Tensor, mean: Tensor) -> Tensor:
    return images.to(torch.float64, memory_format=torch.channels_last) - mean


def in_double_precision(patch=setattr) -> None:
    """To `prepare` a command: everything is computed in float64."""
    torch.set_default_dtype(torch.float64)
    patch(torch.Tensor, "float", torch.Tensor.double)
    for module in (data, train, eval):
        patch(module, "subtract_mean", exact_inputs)


@pytest.fixture
def double_precision(monkeypatch):
    in_double_precision(monkeypatch.setattr)
    yield
    torch.set_default_dtype(torch.float32)


def test_two_processes_learn_what_one_does_that_normalises_two_halves(tmp_path, double_precision):
    """In float64, for five iterations; the moments that a test uses are those of the first half."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    fields = ["--iterations", ITERATIONS, "--milestones", "[50, 60]", "--batch-size", BATCH, "--precision", "float32"]
    commands = [
        start(
            *smoke(tmp_path, *fields, paper="resnet"),
            log=tmp_path / str(rank),
            env=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            prepare=in_double_precision,
        )
        for rank in (0, 1)
    ]
    assert [command.end().code for command in commands] == [0, 0]
    theirs = load_weights(seed_folder(tmp_path) / "weights.safetensors")

    model, wrong, losses = one_process_on_two_halves()
    assert all(weights.dtype == torch.float64 for name, weights in theirs.items() if "num_batches" not in name)
    for name, ours in model.state_dict().items():
        torch.testing.assert_close(theirs[name], ours, rtol=1e-9, atol=1e-12, msg=name)
    curves = record(tmp_path)["curves"]
    assert curves["test_error"] == [100 * wrong]
    assert curves["loss"] == [pytest.approx(losses, rel=1e-9)]


def one_process_on_two_halves() -> tuple[torch.nn.Module, float, float]:
    """The network, its share of mistakes on the test set, and the mean loss."""
    cifar = train.load(STAND_IN)
    images, mean = cifar.train_images, data.mean_picture(cifar.train_images)
    model = train.build_model(train.recipe("resnet20", "smoke"))
    initialise(model, generator(0, "initial weights"))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0001)
    order, losses = torch.randperm(len(images), generator=generator(0, "order", 0)), []
    for index in range(ITERATIONS):
        batch = order[index * BATCH : (index + 1) * BATCH]
        seen = data.augment(images[batch], mean, data.random_crops(len(batch), 0, 0, index))
        moments = [buffer.clone() for buffer in model.buffers()]
        second = model(seen[1::2])
        for buffer, before in zip(model.buffers(), moments, strict=True):
            buffer.data.copy_(before)
        logits = torch.cat([model(seen[::2]), second])
        labels = cifar.train_labels[batch]
        loss = F.cross_entropy(logits, torch.cat([labels[::2], labels[1::2]]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    with torch.no_grad():
        predicted = model.eval()(exact_inputs(cifar.test_images, mean)).argmax(1)
    wrong = (predicted != cifar.test_labels).double().mean().item()
    return model, wrong, sum(losses) / ITERATIONS
