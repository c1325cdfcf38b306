"""What the tests of several papers' training loops share."""

import pytest
import torch

from common.training import winograd


@pytest.fixture
def updates(monkeypatch) -> list[dict]:
    """Of every update by SGD that is made: its `lr`, `momentum`, `weight_decay` and so on, and how many `tensors` it is
    of."""
    honest, made = torch.optim.SGD.step, []

    def step(optimiser: torch.optim.SGD) -> None:
        for group in optimiser.param_groups:
            made.append({name: value for name, value in group.items() if name != "params"})
            made[-1]["tensors"] = len(group["params"])
        honest(optimiser)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    return made


@pytest.fixture
def direct_convolutions(monkeypatch) -> None:
    """As where there is no C compiler: the products are PyTorch's own, whose bits a test can compare."""
    monkeypatch.setattr(winograd, "compile_c", lambda *_, **__: None)
