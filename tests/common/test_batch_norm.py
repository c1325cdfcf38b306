"""Batch normalization in a compiled step, against PyTorch's own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.training.batch_norm import CompiledBatchNorm2d, Normalise, use_compiled_norms
from common.training.determinism import generator

EPSILON = 1e-5


def drawn(*shape: int, index: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(0, "batch norm", index=index), dtype=torch.float64).to(dtype)


def gradients(normalise, x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """What comes out, and the gradients of x, the weight and the bias."""
    inputs = [of.detach().clone().requires_grad_() for of in (x, weight, bias)]
    y = normalise(*inputs)
    return y.detach(), *torch.autograd.grad(y, inputs, dy)


def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return Normalise.apply(x, weight, bias, EPSILON)[0]


def theirs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=EPSILON)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_it_is_batch_normalization_forward_and_backward(mean):
    x, weight, bias, dy = mean + drawn(4, 3, 5, 6), drawn(3, index=1), drawn(3, index=2), drawn(4, 3, 5, 6, index=3)
    weight[0] = 0  # as networks may begin
    for found, expected in zip(
        gradients(ours, x, weight, bias, dy), gradients(theirs, x, weight, bias, dy), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pixel", [0, -1])
def test_one_pixel_far_from_all_others_costs_no_digits(pixel):
    x, weight, bias, dy = (
        drawn(*shape, index=i) for i, shape in enumerate([(128, 2, 32, 32), (2,), (2,), (128, 2, 32, 32)])
    )
    x[pixel, :, pixel, pixel] = 1000
    x = (x + 1000).float().double()
    found = gradients(ours, *(of.float() for of in (x, weight, bias, dy)))
    for one, exact in zip(found, gradients(theirs, x, weight, bias, dy), strict=True):
        assert (one - exact).abs().max() <= 1e-3 * exact.abs().max()


def test_maps_of_one_value_are_the_bias_and_have_no_gradient():
    y, dx, _, d_bias = gradients(
        ours, torch.full((2, 1, 3, 3), 0.1), torch.ones(1), torch.ones(1), torch.ones(2, 1, 3, 3)
    )
    torch.testing.assert_close(y, torch.ones(2, 1, 3, 3), rtol=0, atol=1e-3)
    torch.testing.assert_close(dx, torch.zeros(2, 1, 3, 3), rtol=0, atol=1e-3)
    assert d_bias == 18


def test_in_bfloat16_nothing_but_the_maps_is_rounded():
    x, dy = ((3 + drawn(8, 3, 16, 16, index=i)).bfloat16() for i in range(2))
    weight, bias = drawn(3, index=2), drawn(3, index=3)
    found = gradients(ours, x, weight.float(), bias.float(), dy)
    exact = gradients(ours, x.double(), weight, bias, dy.double())
    assert [of.dtype for of in found] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    for maps, expected in zip(found[:2], exact[:2], strict=True):
        assert ((maps.double() - expected).abs() <= expected.abs() * 2**-8 + 1e-6).all()
    for sums, expected in zip(found[2:], exact[2:], strict=True):
        torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=1e-3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.2), nn.ReLU(), nn.BatchNorm2d(4)
    ).double()


def test_compiled_it_trains_as_pytorchs_own_and_keeps_the_same_statistics():
    plain, fast = network(), network()
    use_compiled_norms(fast)
    assert [type(part) for part in fast][1::2] == 2 * [CompiledBatchNorm2d]
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    for index in range(2):
        x, dy = drawn(6, 2, 8, 8, index=index), drawn(6, 4, 6, 6, index=9)
        for model in (plain, compiled):
            model.zero_grad()
            model(x).backward(dy)
    for kept, expected in zip(fast.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(kept, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9)
    assert not torch.equal(fast[0].weight.grad, plain[0].weight.grad)  # else it would not have been ours


def test_a_single_value_in_a_map_is_refused_as_ever():
    model = nn.Sequential(nn.BatchNorm2d(4)).double()
    use_compiled_norms(model)
    with pytest.raises(RuntimeError, match="more than 1 value per channel"):
        torch.compile(model, backend="aot_eager")(drawn(1, 4, 1, 1))


def test_what_is_not_compiled_or_not_trained_stays_as_it_was_to_the_last_bit():
    plain, fast = network(), network()
    use_compiled_norms(fast)
    x = drawn(6, 2, 8, 8)
    assert torch.equal(plain(x), fast(x))
    plain.eval(), fast.eval()
    assert torch.equal(plain(x), torch.compile(fast, backend="aot_eager", fullgraph=True)(x))
    assert list(copy.deepcopy(fast).state_dict()) == list(plain.state_dict())


class Another(nn.BatchNorm2d):
    pass


def test_what_keeps_no_statistics_or_is_of_another_class_is_left_alone():
    others = nn.Sequential(
        Another(2),
        nn.BatchNorm2d(2, affine=False),
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.BatchNorm2d(2, momentum=None),
        nn.BatchNorm1d(2),
    )
    before = [type(part) for part in others]
    use_compiled_norms(others)
    assert [type(part) for part in others] == before
