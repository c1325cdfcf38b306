"""The ways to run a training step give one result. Compiling is tested with the paper that compiles (ResNet)."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._functorch import config as functorch_config

from common.training import steps
from common.training.batch_norm import CompiledBatchNorm2d
from common.training.determinism import generator
from common.training.steps import fast_step, plain_step

SHAPES = (8, 8, 3, 8)  # of the batches; the last of an epoch is shorter


def network() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    for number, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, std=0.1, generator=generator(0, "weights", index=number))
    return model


def batches(device: str = "cpu") -> list[tuple[Tensor, Tensor]]:
    draw = generator(0, "batches")
    made = [(torch.randn(n, 1, 8, 8, generator=draw), torch.randint(2, (n,), generator=draw)) for n in SHAPES]
    return [(pictures.to(device), labels.to(device)) for pictures, labels in made]


def loss_of(model: nn.Module):
    def loss(pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(pictures)
        return F.cross_entropy(logits, labels), (logits.argmax(1) != labels).sum()

    return loss


def test_the_plain_step_leaves_the_gradient_of_the_newest_batch_alone():
    model, others = network(), network()
    step = plain_step(loss_of(model), model)
    for batch in batches():
        value, mistakes = step(*batch)
        assert not value.requires_grad and mistakes.dtype == torch.int64
    for batch in batches():
        others.zero_grad()
        loss_of(others)(*batch)[0].backward()
    for ours, theirs in zip(model.parameters(), others.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_where_compiling_does_not_pay_a_cpu_takes_the_plain_step():
    model = network()
    before = copy.deepcopy(model.state_dict())
    step, how = fast_step(loss_of(model), model, batches()[:1], compiled=False)
    assert how is None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert step(*batches()[0])[0] == loss_of(network())(*batches()[0])[0]


def test_a_compiled_step_normalises_in_its_own_way(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda loss, **_: loss)
    monkeypatch.setattr(steps, "_compiler", lambda: "c++ 1.0")
    for compiled, kind in ((False, nn.BatchNorm2d), (True, CompiledBatchNorm2d)):
        model = network()
        fast_step(loss_of(model), model, batches()[:1], compiled)
        assert type(model[1]) is kind


def test_signs_are_computed_again_on_the_way_back_while_a_step_is_compiled(monkeypatch):
    bans = []

    def compiler(loss, **_):
        return lambda *batch: bans.append(functorch_config.ban_recompute_used_far_apart) or loss(*batch)

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(steps, "_compiler", lambda: "c++ 1.0")
    model = network()
    fast_step(loss_of(model), model, batches())
    assert bans == [False] * len(batches()) and functorch_config.ban_recompute_used_far_apart


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_has_the_bits_of_the_plain_step():
    results = []
    for fast in (True, False):
        model = network().cuda()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
        step, how = plain_step(loss_of(model), model), None
        if fast:
            step, how = fast_step(loss_of(model), model, [batches("cuda")[0], batches("cuda")[2]])
            assert how == "training step as a CUDA graph"
        seen = []
        for batch in batches("cuda"):
            value, mistakes = step(*batch)
            optimiser.step()
            seen.append((value.item(), mistakes.item()))
        results.append((seen, {name: value.cpu() for name, value in model.state_dict().items()}))
    (seen, weights), (plainly_seen, plain_weights) = results
    assert seen == plainly_seen
    assert all(torch.equal(weights[name], value) for name, value in plain_weights.items())
