"""What the tests of several papers' training loops share."""

import pytest
import torch


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
