"""The deterministic set-up is in force, and draws depend on nothing but what they are for."""

import random

import numpy as np
import pytest
import torch

from common.training.determinism import FLAGS, current_flags, generator, make_deterministic


@pytest.fixture(autouse=True)
def _restore(monkeypatch):
    """Leave the process as it was."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    mode = torch.get_deterministic_debug_mode()
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    switches = [(cudnn, "deterministic"), (cudnn, "benchmark"), (cudnn, "allow_tf32"), (matmul, "allow_tf32")]
    switches += [(torch.utils.deterministic, "fill_uninitialized_memory")]
    before = [getattr(*switch) for switch in switches]
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    torch.set_deterministic_debug_mode(mode)
    torch.set_flush_denormal(False)
    for switch, value in zip(switches, before, strict=True):
        setattr(*switch, value)


def draws(*arguments) -> list[float]:
    return torch.rand(8, generator=generator(*arguments)).tolist()


def test_the_flags_are_set_and_handed_back():
    assert make_deterministic(0) == current_flags() == FLAGS
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert not (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    assert not torch.utils.deterministic.fill_uninitialized_memory  # it would cost time and change no result


@pytest.mark.parametrize(
    ("name", "undo"),
    [
        ("deterministic_algorithms", lambda patch: torch.set_deterministic_debug_mode(0)),
        ("cudnn_deterministic", lambda patch: patch.setattr(torch.backends.cudnn, "deterministic", False)),
        ("cudnn_benchmark", lambda patch: patch.setattr(torch.backends.cudnn, "benchmark", True)),
        ("tf32", lambda patch: patch.setattr(torch.backends.cudnn, "allow_tf32", True)),
        ("tf32", lambda patch: patch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)),
        ("cublas_workspace", lambda patch: patch.delenv("CUBLAS_WORKSPACE_CONFIG")),
    ],
)
def test_a_flag_that_someone_changed_is_reported_as_it_is(monkeypatch, name, undo):
    make_deterministic(0)
    undo(monkeypatch)
    assert {flag for flag in FLAGS if current_flags()[flag] != FLAGS[flag]} == {name}


def test_what_is_not_deterministic_is_forbidden():
    make_deterministic(0)
    with pytest.raises(RuntimeError, match="deterministic"):
        torch.ones(4).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)


def test_tiny_numbers_are_not_flushed_to_zero():
    torch.set_flush_denormal(True)
    make_deterministic(0)
    assert torch.tensor([1e-310], dtype=torch.float64).mul(0.5).item() > 0


@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_every_global_generator_is_seeded(seed):
    def all_draws():
        make_deterministic(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert all_draws() == all_draws()


def test_the_same_arguments_draw_the_same():
    assert draws(3, "order", 2, 1) == draws(3, "order", 2, 1)


def test_any_other_argument_draws_otherwise():
    variants = [
        (3, "order", 2, 1), (4, "order", 2, 1), (3, "crop", 2, 1), (3, "order", 1, 1), (3, "order", 2, 2),
        (3, "order", 1, 2), (3, "order"), (32, "order", 1), (3, "2/order", 1), (3, "order", 21), (3, "order/2", 1),
    ]  # fmt: skip
    assert len({tuple(draws(*arguments)) for arguments in variants}) == len(variants)


def test_draws_know_no_global_state_and_leave_none():
    torch.manual_seed(1)
    first, untouched = draws(0, "order"), torch.get_rng_state()
    assert torch.equal(untouched, torch.manual_seed(1).get_state())
    torch.manual_seed(2)
    random.seed(2)
    np.random.seed(2)
    torch.rand(5)
    assert draws(0, "order") == first


def test_draws_are_the_same_on_every_machine():
    assert torch.randperm(10, generator=generator(0, "order", 1)).tolist() == [4, 0, 5, 6, 8, 7, 1, 2, 9, 3]
